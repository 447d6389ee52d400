"""The batches of an epoch: which examples each step takes, and their images where these must be read first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from reweight_core.data.batch import BatchSource, Source
from reweight_core.data.examples import Examples
from reweight_core.data.reader import ReadRequest, read_ahead
from reweight_core.data.seeds import Stream, cycled_order, epoch_order
from reweight_core.machine.together import ALONE, Share, Together


@attrs.frozen(eq=False)
class Fed:
    """What one step takes.

    Attributes:
        ids: positions in the stage's source, int64 (n,).
        meta_ids: positions in the meta set, int64 (m,); m = 0 if the method supplies the meta batches itself.
        pixels: the images of `ids`, (n, channels, height, width) as stored, or None if they lie on the device.
        meta_pixels: likewise of `meta_ids`.
        share: which part of the step's batch `ids` are, in a run of several processes; None for all of it.
        meta_share: likewise of `meta_ids`.
    """

    ids: Tensor
    meta_ids: Tensor
    pixels: Tensor | None = None
    meta_pixels: Tensor | None = None
    share: Share | None = None
    meta_share: Share | None = None

    @property
    def n(self) -> int:
        """Number of examples in the step's whole batch."""
        return len(self.ids) if self.share is None else self.share.n

    def empty(self) -> Fed:
        """Return tensors of the same shapes to copy into."""
        pixels, meta_pixels = (
            None if tensor is None else torch.empty_like(tensor) for tensor in (self.pixels, self.meta_pixels)
        )
        ids, meta_ids = torch.empty_like(self.ids), torch.empty_like(self.meta_ids)
        return Fed(ids, meta_ids, pixels, meta_pixels, self.share, self.meta_share)

    def copy_(self, other: Fed) -> None:
        """Copy another's tensors into these, which keep their addresses."""
        for name in ("ids", "meta_ids", "pixels", "meta_pixels"):
            held, given = getattr(self, name), getattr(other, name)
            if given is not None:
                held.copy_(given)


class Feeder:
    """Orders the examples of every epoch and reads those that are stored elsewhere ahead of the steps.

    Args:
        train: training examples.
        meta: what meta batches come from, or None.
        meta_batch_size: m, at most the meta set.
        seed: seed of the run; the order follows from it and the epoch, random crops also from the example's position.
        workers: processes that read stored examples.
        both: the training examples and the meta set's behind them, if any stage trains on the two.
        together: the processes of the run; each is fed its share of every batch.
    """

    def __init__(
        self,
        train: Examples,
        meta: Examples | BatchSource | None,
        meta_batch_size: int,
        seed: int,
        workers: int,
        both: Examples | None = None,
        together: Together = ALONE,
    ):
        self._together = together
        self._train, self._meta = train, meta if isinstance(meta, Examples) else None
        self._sources: dict[Source, Examples | None] = {"train": train, "meta": self._meta, "both": both}
        self._m = 0 if self._meta is None else min(meta_batch_size, len(self._meta))
        self._seed, self._workers = seed, workers
        self._device = train.labels.device

    def epoch(
        self, number: int, source: Source, sizes: Sequence[int], order: np.ndarray | None = None, first: int = 0
    ) -> Iterator[Fed]:
        """Give what each step of an epoch takes, this process's share of it.

        Args:
            number: the epoch, counted from 0 over all stages.
            source: what the stage trains on.
            sizes: the size n of every step's whole batch.
            order: positions in the source, at least as many as the batches take; None for all of them in random order.
            first: the step of the epoch to begin with, from 0.
        """
        length, examples = sum(sizes), self._sources[source]
        assert examples is not None, "a stage on what there is not is refused"
        if order is not None:
            order = order[:length]
        elif source == "meta":
            order = cycled_order(self._seed, number, len(examples), length, Stream.META_TRAINING_ORDER)
        else:
            order = epoch_order(self._seed, number, len(examples))[:length]
        shares = [self._together.share(n) for n in sizes]
        meta_share = self._together.share(self._m)
        ids = [share.of(part) for share, part in zip(shares, np.split(order, np.cumsum(sizes)[:-1]), strict=True)]
        meta_order = np.empty(0, np.int64)
        if self._meta is not None:
            meta_order = cycled_order(self._seed, number, len(self._meta), len(sizes) * self._m)
        meta_ids = [meta_share.of(part) for part in meta_order.reshape(len(sizes), self._m)]
        ids, meta_ids, shares = ids[first:], meta_ids[first:], shares[first:]
        images = read_ahead(list(self._requests(number, examples, ids, meta_ids)), self._workers, self._device)
        # the whole order goes to the device at once: a copy a step would wait for it
        parts = self._on_device(ids)
        for part, meta_part, share in zip(parts, self._on_device(meta_ids), shares, strict=True):
            pixels = None if examples.stored is None else next(images)
            meta_pixels = None if self._meta is None or self._meta.stored is None else next(images)
            yield Fed(part, meta_part, pixels, meta_pixels, share, meta_share)

    def _on_device(self, ids: Sequence[np.ndarray]) -> Sequence[Tensor]:
        return torch.from_numpy(np.concatenate(ids)).to(self._device).split([len(part) for part in ids])

    def _requests(
        self, epoch: int, examples: Examples, ids: Sequence[np.ndarray], meta_ids: Sequence[np.ndarray]
    ) -> Iterator[ReadRequest]:
        """Say what the steps need to have read, in the order in which they take them."""
        for part, meta_part in zip(ids, meta_ids, strict=True):
            if examples.stored is not None:
                yield examples.request(part, (self._seed, Stream.TRAIN_CROPS, epoch))
            if self._meta is not None and self._meta.stored is not None:
                yield self._meta.request(meta_part, (self._seed, Stream.META_CROPS, epoch))


def batch_sizes(examples: int, batch_size: int, processes: int = 1) -> list[int]:
    """Return the sizes of an epoch's batches; the last is smaller, and left out if BatchNorm could not take it.

    Args:
        examples: number of examples in the epoch.
        batch_size: n.
        processes: how many processes share each batch; BatchNorm needs two examples in every one.
    """
    full, rest = divmod(examples, batch_size)
    return [batch_size] * full + [rest] * (rest >= 2 * processes)
