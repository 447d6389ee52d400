"""What the steps of an epoch add up to, gathered on the device for the epoch's figures."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from reweight_core.engine.step import Step


@attrs.frozen(eq=False)
class EpochSums:
    """Sums over the steps of an epoch, on the device: tensors without dimensions, the last three (C,).

    `zero_steps` counts the steps in which every weight that plugins gave was 0, `labels` the examples of each observed
    class, `hits` those of them that were predicted as observed, `predictions` the examples that were predicted as each
    class.
    """

    steps: Tensor
    train_loss: Tensor
    examples: Tensor
    effective_examples: Tensor
    zero_steps: Tensor
    meta_loss: Tensor
    meta_steps: Tensor
    labels: Tensor
    hits: Tensor
    predictions: Tensor

    @classmethod
    def zeros(cls, device: torch.device, num_classes: int) -> EpochSums:
        """Return sums that start at 0."""
        counts = [torch.zeros(num_classes, dtype=torch.int64, device=device) for _ in range(3)]
        return cls(*(torch.zeros((), device=device) for _ in range(7)), *counts)

    def add(self, step: Step, weights: Tensor) -> None:
        """Add a step, as it was before its update.

        Args:
            step: the step.
            weights: its weights, (n,) or (n, C).
        """
        self.steps.add_(1)
        self.train_loss.add_(step.losses.sum())
        self.examples.add_(step.n)
        self.effective_examples.add_(effective_number(weights if weights.dim() == 1 else weights.mean(1)))
        self.zero_steps.add_(_all_zero(weights, step.kept_plain))
        if step.meta_value is not None:
            self.meta_loss.add_(step.meta_value)
            self.meta_steps.add_(1)
        predicted, each = step.logits.argmax(1), torch.ones_like(step.labels)
        self.labels.index_add_(0, step.labels, each)
        self.hits.index_add_(0, step.labels, each * (predicted == step.labels))
        self.predictions.index_add_(0, predicted, each)

    def reset(self) -> None:
        """Start again at 0, in place."""
        for field in attrs.fields(type(self)):
            getattr(self, field.name).zero_()


def _all_zero(weights: Tensor, kept_plain: Tensor | None) -> Tensor:
    zero = weights == 0 if weights.dim() == 1 else (weights == 0).all(1)
    return zero.all() if kept_plain is None else (zero | kept_plain).all() & ~kept_plain.all()


def effective_number(weights: Tensor) -> Tensor:
    """Return the number of equally weighted examples that would average out as much as these: (sum w)^2 / sum w^2.

    It is also called Kish's effective sample size; 0 where all weights are 0.

    Args:
        weights: of the examples, (n,).
    """
    squares = weights.square().sum()
    return weights.sum().square() / torch.where(squares == 0, 1, squares)
