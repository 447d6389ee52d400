"""Which process visited an example last in an epoch, and so knows what is to be kept of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from reweight_core.machine.together import Together

_PLACES = 2**32
"""More than a batch has examples."""


class VisitsOfProcesses:
    """The last visit of each example within an epoch, in a run of several processes.

    Args:
        rows: number of examples.
        device: where the records lie.
        together: the processes of the run.
    """

    def __init__(self, rows: int, device: torch.device, together: Together):
        self._together = together
        # which step, and below that which place of its batch; 0 for a row that was not visited
        self._last = torch.zeros(rows, dtype=torch.int64, device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self.forget()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is noted, by name."""
        return {"last_visit": self._last, "visiting_step": self._step}

    def forget(self) -> None:
        """Begin an epoch, in place."""
        self._last.zero_()
        self._step.zero_()

    def note(self, ids: Tensor) -> None:
        """Note the examples of a step, by position, (n,)."""
        self._step.add_(_PLACES)
        place = torch.arange(len(ids), device=ids.device) * self._together.size + self._together.rank
        self._last.index_copy_(0, ids, self._step + place)

    def merge(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the rows of the one that visited them last, in place; (N, ...) for the first N rows.

        Rows that nobody visited stay as they are: they are the same in every process.
        """
        last = self._together.greatest(self._last)
        own, by_nobody = (self._last == last) & (last > 0), last == 0
        named = {str(place): tensor for place, tensor in enumerate(tensors)}
        mine = {n: torch.where(_rows(own, t), t, 0).to(_summed(t.dtype)) for n, t in named.items()}
        for name, total in self._together.totals(mine).items():
            tensor = named[name]
            tensor.copy_(torch.where(_rows(by_nobody, tensor), tensor, total.to(tensor.dtype)))


def _rows(which: Tensor, tensor: Tensor) -> Tensor:
    """Return a choice of rows in a shape that goes with a tensor, (N, 1, ...)."""
    return which[: len(tensor)].view(len(tensor), *(1,) * (tensor.dim() - 1))


def _summed(dtype: torch.dtype) -> torch.dtype:
    return torch.uint8 if dtype == torch.bool else dtype
