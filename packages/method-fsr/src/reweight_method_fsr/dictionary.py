"""The dictionary R of trusted training examples, and the balanced probe batches drawn from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reweight_core import Batch, Examples, UserError

_CHUNK = 500


class Dictionary:
    """|R| examples, as equally many of every observed class as there are, their images augmented once an epoch.

    Classes without an example take no part. A class with fewer examples than its share is in the dictionary as a
    whole; the first |R| mod C classes have one more than the others, and every class has one even if |R| < C.

    Args:
        examples: what to choose from.
        size: |R|.
        probe_size: q, examples in a probe batch.
        generator: source of the draws and of the augmentation; its state belongs to the checkpoint.

    Attributes:
        ids: positions in `examples` by class and slot, int64 (P, S) with P classes that have examples; -1 for a slot
            that is not filled.
    """

    def __init__(self, examples: Examples, size: int, probe_size: int, generator: torch.Generator):
        self._examples, self._generator = examples, generator
        self._labels = examples.labels.cpu().numpy()
        classes, available = np.unique(self._labels, return_counts=True)
        self._share = np.full(len(classes), size // len(classes))
        self._share[: size % len(classes)] += 1
        self._share = self._share.clip(min=1)
        self._q = probe_size
        device = examples.labels.device
        slots = int(np.minimum(self._share, available).max())
        sample = examples.batch(torch.zeros(1, dtype=torch.int64, device=device), None).inputs
        if not isinstance(sample, Tensor):
            raise UserError(
                "fsr: keeps a dictionary of examples, whose inputs must be one tensor each; use another method"
            )
        self._memory_format = examples.memory_format
        self._images = sample.new_zeros(len(classes) * slots, *sample.shape[1:]).contiguous(
            memory_format=self._memory_format
        )
        self._classes = torch.from_numpy(classes).to(device)
        self._filled = torch.zeros(len(classes), dtype=torch.int64, device=device)
        self.ids = torch.full((len(classes), slots), -1, device=device)
        everybody = torch.ones(len(examples), dtype=torch.bool, device=device)
        self.refresh(torch.rand(len(examples), generator=generator, device=device), everybody)

    def draw_batch(self) -> Batch:
        """Draw q examples, equally many of each class; one comes again only after all of its class have come."""
        classes, slots = self.ids.shape
        device, generator = self.ids.device, self._generator
        each = -(-self._q // classes)
        # a random order of each class's filled slots, the empty ones behind
        order = torch.rand(classes, slots, generator=generator, device=device)
        place = torch.arange(max(each, slots), device=device)
        order = torch.where(place[:slots] >= self._filled[:, None], 2, order).argsort(1)[:, :each]
        # where a class has no more of them, any again
        chosen = (torch.rand(classes, each, generator=generator, device=device) * self._filled[:, None]).long()
        taken = place[: order.shape[1]] < self._filled[:, None]
        chosen = torch.cat([torch.where(taken, order, chosen[:, : order.shape[1]]), chosen[:, order.shape[1] :]], 1)
        chosen = chosen + slots * torch.arange(classes, device=device)[:, None]
        if self._q % classes:
            # q is no multiple: chance decides which classes give one more
            more = torch.rand(classes, generator=generator, device=device).argsort()[: self._q % classes]
            chosen = torch.cat([chosen[:, : each - 1].flatten(), chosen[more, each - 1]])
        chosen = chosen.flatten()
        images = self._images.index_select(0, chosen).contiguous(memory_format=self._memory_format)
        return Batch(self.ids.flatten()[chosen], images, self._classes[chosen // slots])

    def refresh(self, scores: Tensor, seen: Tensor) -> None:
        """Take the examples with the highest scores of each class (Eq. 4), and augment them anew.

        Args:
            scores: (N,), of the examples to choose from.
            seen: which of them have a score, bool (N,). A class without any keeps what it has.
        """
        known = seen.cpu().numpy()
        # by class; those with a score first, then by score, then by position
        order = np.lexsort((-scores.cpu().numpy().astype(np.float64), ~known, self._labels))
        ids, filled = self.ids.cpu().numpy(), self._filled.cpu().numpy()
        start = 0
        for row, label in enumerate(self._classes.tolist()):
            end = start + int(np.count_nonzero(self._labels == label))
            chosen = order[start:end]
            chosen = chosen[known[chosen]][: self._share[row]]
            if len(chosen):
                ids[row], filled[row] = -1, len(chosen)
                ids[row, : len(chosen)] = chosen
            start = end
        self.ids.copy_(torch.from_numpy(ids))
        self._filled.copy_(torch.from_numpy(filled))
        self.augment()

    def augment(self) -> None:
        """Augment the images anew; until the next time they stay as they are."""
        slots = (self.ids.flatten() >= 0).nonzero().squeeze(1)
        for part in slots.split(_CHUNK):
            self._images[part] = self._examples.batch(self.ids.flatten()[part], self._generator).inputs

    def chosen(self) -> Tensor:
        """Return the positions of the examples in the dictionary, int64 (at most |R|,); not for use in a step."""
        return self.ids[self.ids >= 0]

    def state_dict(self) -> dict[str, Tensor]:
        """Which examples are in it, their images as they were augmented, and the generator."""
        return {
            "ids": self.ids,
            "filled": self._filled,
            "images": self._images,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.ids.copy_(state["ids"])
        self._filled.copy_(state["filled"])
        self._images.copy_(state["images"])
        self._generator.set_state(state["generator"])
