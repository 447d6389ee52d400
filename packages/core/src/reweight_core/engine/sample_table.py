"""What is known of every training example: its weights, loss and prediction, gathered step by step on the device."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reweight_core.engine.step import Step


class SampleTable:
    """Per-example records, each of shape (N,), indexed by position in the training set.

    Args:
        size: number of training examples N.
        device: where the records lie.
        further: number of examples that may follow them in a batch's source, which are noted and not shown.

    Attributes:
        tensors: the records of the training examples by name.
    """

    def __init__(self, size: int, device: torch.device, further: int = 0):
        rows = size + further
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

    def mean(self, name: Literal["weight", "loss", "margin"]) -> Tensor:
        """Return the mean of a record over each example's visits so far, (N,); 0 if it was never visited."""
        return self.tensors[f"{name}_sum"] / self.tensors["visits"].clamp(min=1)
