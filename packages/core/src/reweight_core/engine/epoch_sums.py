"""What the steps of an epoch add up to, gathered on the device for the epoch's figures."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from reweight_core.engine.step import Step
from reweight_core.machine.together import Together

_OF_SHARES = ("train_loss", "examples", "labels", "hits", "predictions")
"""The sums of which each process has those of its shares of the batches; the others it has of whole batches."""


@attrs.frozen(eq=False)
class EpochSums:
    """Sums over the steps of an epoch, on the device: tensors without dimensions, the last three (C,).

    `zero_steps` counts the steps in which every weight that plugins gave was 0, `skipped_steps` those that changed
    nothing because something was not finite (and which no other sum counts), `labels` the examples of each observed
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
    skipped_steps: Tensor
    labels: Tensor
    hits: Tensor
    predictions: Tensor

    @classmethod
    def zeros(cls, device: torch.device, num_classes: int) -> EpochSums:
        """Return sums that start at 0."""
        counts = [torch.zeros(num_classes, dtype=torch.int64, device=device) for _ in range(3)]
        return cls(*(torch.zeros((), device=device) for _ in range(8)), *counts)

    def add(self, step: Step, weights: Tensor) -> None:
        """Add a step, as it was before its update.

        Args:
            step: the step.
            weights: its weights, (n,) or (n, C).
        """
        self.steps.add_(1)
        self.train_loss.add_(step.losses.sum())
        self.examples.add_(len(step.ids))
        of_examples = weights if weights.dim() == 1 else weights.mean(1)
        others, not_zero = _counts(weights, step.kept_plain)
        sums = step.total(torch.stack([of_examples.sum(), of_examples.square().sum(), others, not_zero])).unbind()
        self.effective_examples.add_(_effective(*sums[:2]))
        self.zero_steps.add_((sums[3] == 0) & (sums[2] > 0))
        if step.meta_value is not None:
            self.meta_loss.add_(step.meta_value)
            self.meta_steps.add_(1)
        predicted, each = step.logits.argmax(1), torch.ones_like(step.labels)
        self.labels.index_add_(0, step.labels, each)
        self.hits.index_add_(0, step.labels, each * (predicted == step.labels))
        self.predictions.index_add_(0, predicted, each)

    def merge(self, together: Together) -> None:
        """Make them the sums over all processes, in place; called once an epoch, at its end.

        The others follow from whole batches, and are the same in every process.
        """
        if together.size > 1:
            for name, total in together.totals({name: self.tensors[name] for name in _OF_SHARES}).items():
                self.tensors[name].copy_(total)

    def forget_totals(self) -> None:
        """Begin at 0 what each process adds up of its own shares, in place: another one has it already."""
        for name in _OF_SHARES:
            self.tensors[name].zero_()

    def reset(self) -> None:
        """Start again at 0, in place."""
        for tensor in self.tensors.values():
            tensor.zero_()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The sums by name."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}


def _counts(weights: Tensor, kept_plain: Tensor | None) -> tuple[Tensor, Tensor]:
    """Count the examples that plugins weight, and those of them whose weights are not 0, as floating-point numbers."""
    not_zero = weights != 0 if weights.dim() == 1 else (weights != 0).any(1)
    others = torch.ones_like(not_zero) if kept_plain is None else ~kept_plain
    return others.sum().to(weights.dtype), (others & not_zero).sum().to(weights.dtype)


def effective_number(weights: Tensor) -> Tensor:
    """Return the number of equally weighted examples that would average out as much as these: (sum w)^2 / sum w^2.

    It is also called Kish's effective sample size; 0 where all weights are 0.

    Args:
        weights: of the examples, (n,).
    """
    return _effective(weights.sum(), weights.square().sum())


def _effective(total: Tensor, squares: Tensor) -> Tensor:
    return total.square() / torch.where(squares == 0, 1, squares)
