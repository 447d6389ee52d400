"""What is known of every training example: its weights, loss and prediction, gathered step by step on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from reweight_core.engine.step import Step
from reweight_core.engine.visits import VisitsOfProcesses
from reweight_core.machine.together import ALONE, Together

_SUMS = ("weight_sum", "loss_sum", "margin_sum", "visits")


class SampleTable:
    """Per-example records, each of shape (N,), indexed by position in the training set.

    Args:
        size: number of training examples N.
        device: where the records lie.
        further: number of examples that may follow them in a batch's source, which are noted and not shown.
        together: the processes of the run. Within an epoch each knows of its own examples, until `merge`.

    Attributes:
        tensors: the records of the training examples by name.
    """

    def __init__(self, size: int, device: torch.device, further: int = 0, together: Together = ALONE):
        rows, self._together = size + further, together
        self._rows: dict[str, Tensor] = {
            "weight_sum": torch.zeros(rows, device=device),
            "loss_sum": torch.zeros(rows, device=device),
            "margin_sum": torch.zeros(rows, device=device),
            "last_weight": torch.zeros(rows, device=device),
            "loss": torch.zeros(rows, device=device),
            "probability": torch.zeros(rows, device=device),
            "margin": torch.zeros(rows, device=device),
            "predicted": torch.full((rows,), -1, dtype=torch.int64, device=device),
            "visits": torch.zeros(rows, dtype=torch.int64, device=device),
        }
        self.tensors = {name: tensor[:size] for name, tensor in self._rows.items()}
        self._visits = VisitsOfProcesses(rows, device, together) if together.size > 1 else None
        self._before = {name: torch.zeros_like(self._rows[name]) for name in _SUMS if together.size > 1}

    def record(self, step: Step, weights: Tensor) -> None:
        """Note the batch as the step saw it: before its update, in train mode.

        Args:
            step: the step.
            weights: of the examples, (n,).
        """
        own = step.logits.gather(1, step.labels[:, None]).squeeze(1)
        others = step.logits.scatter(1, step.labels[:, None], -torch.inf)
        seen = {
            "last_weight": weights,
            "loss": step.losses,
            "probability": step.probabilities.gather(1, step.labels[:, None]).squeeze(1),
            "margin": own - others.amax(1),
            "predicted": step.logits.argmax(1),
        }
        for name, value in seen.items():
            self._rows[name].index_copy_(0, step.ids, value.to(self._rows[name].dtype))
        for name, value in (("weight_sum", weights), ("loss_sum", seen["loss"]), ("margin_sum", seen["margin"])):
            self._rows[name].index_add_(0, step.ids, value.to(self._rows[name].dtype))
        self._rows["visits"].index_add_(0, step.ids, torch.ones_like(step.ids))
        if self._visits is not None:
            self._visits.note(step.ids)

    @property
    def of_process(self) -> dict[str, Tensor]:
        """Within an epoch of several processes: what this one knows alone, by name."""
        if self._visits is None:
            return {}
        before = {f"{name}_before": tensor for name, tensor in self._before.items()}
        return {**self._rows, **before, **self._visits.tensors}

    def begin_epoch(self) -> None:
        """With several processes: add up what is new, from 0 on."""
        if self._visits is not None:
            for name in _SUMS:
                self._before[name].copy_(self._rows[name])
            for name in _SUMS:
                self._rows[name].zero_()
            self._visits.forget()

    def merge(self, further: Iterable[Tensor] = ()) -> None:
        """With several processes: give each what the others noted; called once an epoch, at its end.

        Args:
            further: tensors (N, ...) of plugins by position in the training set, which hold of an example what the
                process knows that visited it last; they are made the same in every process.
        """
        if self._visits is None:
            return
        for name, total in self._together.totals({name: self._rows[name] for name in _SUMS}).items():
            self._rows[name].copy_(self._before[name] + total)
        last = [tensor for name, tensor in self._rows.items() if name not in _SUMS]
        self._visits.merge([*last, *further])

    def mean(self, name: Literal["weight", "loss", "margin"]) -> Tensor:
        """Return the mean of a record over each example's visits so far, (N,); 0 if it was never visited."""
        return self.tensors[f"{name}_sum"] / self.tensors["visits"].clamp(min=1)
