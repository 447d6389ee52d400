"""PENCIL: probabilistic end-to-end noise correction (Yi & Wu, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs
import torch
from torch import Tensor

from reweight_core import Batch, Context, Stage, Step, UserError, cross_entropy, hookimpl
from reweight_losses.options import PencilConfig

STAGE_ENDS = (70 / 320, 200 / 320)
"""Where the first two stages end, as shares of the epochs, in the official code."""

BACKBONE, CORRECT, FINAL = "backbone", "correct", "final"


class Pencil:
    """Learns a label distribution y^d = softmax(Y) for every example, beside the network (section 3).

    Y (N, C) begins at K on the observed label and 0 elsewhere. First stage: cross-entropy with the labels at a high,
    constant rate. Second: (1/C) KL(p || y^d) + alpha CE(y^d, y) + (beta/C) H(p), on which network and Y both step.
    Third: (1/C) KL(p || y^d) alone with Y fixed, the rate falling twice to a tenth. Batch means, as everywhere.
    """

    def __init__(self, config: PencilConfig, context: Context):
        self.config, self.C = config, context.num_classes
        self.ends = _stage_ends(config, context.epochs)
        shape = (context.train_size, self.C)
        self.Y = context.by_example(torch.zeros(shape, device=context.device, dtype=context.dtype))
        self.Y.scatter_(1, context.train.labels[:, None], config.label_scale)
        self._stage = BACKBONE
        self._new_rows: tuple[Tensor, Tensor] | None = None

    @hookimpl
    def plan_stages(self, stage: Stage) -> list[Stage]:
        """Three stages, the first two with a rate of their own; in a very short run some have no epoch."""
        first, second = self.ends
        rate = 0.3 * stage.lr if self.config.correct_lr is None else self.config.correct_lr
        last = stage.epochs - second
        stage = attrs.evolve(stage, steps=None)
        stages = [
            attrs.evolve(stage, name=BACKBONE, epochs=first, lr=rate, schedule=constant),
            attrs.evolve(stage, name=CORRECT, epochs=second - first, lr=rate, schedule=constant),
            attrs.evolve(stage, name=FINAL, epochs=last, schedule=partial(two_drops, epochs=last)),
        ]
        return [planned for planned in stages if planned.epochs]

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The loss of each example in the present stage, but for the term that does not depend on the logits, (n,).

        Trusted examples have cross-entropy at the scale of the others, 1/C of it after the first stage.
        """
        if self._stage == BACKBONE:
            return cross_entropy(batch, logits)
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        losses = (p * (log_p - self.Y[batch.ids].log_softmax(1))).sum(1) / self.C
        if self._stage == CORRECT:
            losses = losses - self.config.beta / self.C * (p * log_p).sum(1)
        if batch.trusted is not None:
            losses = torch.where(batch.trusted, cross_entropy(batch, logits) / self.C, losses)
        return losses

    @hookimpl
    def follow_forward(self, step: Step) -> None:
        """In the second stage, find where the batch's rows of Y go."""
        self._stage, self._new_rows = step.stage.name, None
        if self._stage == CORRECT:
            Y = self.Y[step.ids]
            gradient = label_gradient(Y, step.probabilities, step.one_hot, self.config.alpha) / step.n
            self._new_rows = step.ids, Y - self.config.label_lr * gradient.to(Y.dtype)

    @hookimpl
    def follow_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Move Y, now that the network has moved with the distributions as they were."""
        if self._new_rows is not None:
            self.Y.index_copy_(0, *self._new_rows)
            self._new_rows = None

    @hookimpl
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """The probability y^d_y that is left to the observed label, (n,): no weight, but small where it looks wrong."""
        return self.Y[step.ids].softmax(1).gather(1, step.labels[:, None]).squeeze(1).to(weights.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Return Y."""
        return {"Y": self.Y}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.Y.copy_(state["Y"])


def label_gradient(Y: Tensor, p: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Return the gradient of (1/C) KL(p || y^d) + alpha CE(y^d, y) with respect to Y, (n, C).

    The official code, which the published settings belong to, takes y^d for logits in the second term: it is
    CE(softmax(y^d), y), and pulls less than the paper's.

    Args:
        Y: label logits (n, C).
        p: predictions (n, C).
        y: observed labels as rows (n, C).
        alpha: factor of the second term.
    """
    y_d = Y.softmax(1)
    v = y_d.softmax(1) - y
    compatibility = y_d * (v - (v * y_d).sum(1, keepdim=True))
    return (y_d - p) / Y.shape[1] + alpha * compatibility


def constant(epochs_done: float) -> float:
    """Factor of a rate that stays."""
    return 1.0


def two_drops(epochs_done: float, epochs: int) -> float:
    """Factor of a rate that falls to a tenth after one and after two thirds of the epochs."""
    return 0.1 ** int(3 * epochs_done / epochs)


def _stage_ends(config: PencilConfig, epochs: int) -> tuple[int, int]:
    defaults = [max(1, round(share * epochs)) for share in STAGE_ENDS]
    given = (config.correct_from, config.correct_until)
    first, second = (default if end is None else end for default, end in zip(defaults, given, strict=True))
    if not first <= second <= epochs:
        raise UserError(f"--correct-from {first}, --correct-until {second} and --epochs {epochs} must be in this order")
    return first, second
