"""S-model: a noise channel that is learned with the network (Goldberger & Ben-Reuven, ICLR 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from reweight_core import Batch, Context, Stage, Step, hookimpl
from reweight_losses.correction import forward_losses, plain_if_trusted
from reweight_losses.options import SModelConfig


class SModel:
    """Forward correction -log (p Q)_y with a channel Q that is learned, the softmax of W (C, C) by rows (the s-model).

    Q begins at 1 - e on the diagonal and e/(C - 1) elsewhere. W follows the unweighted loss of the batch, with the
    network's optimizer but for weight decay. Predictions are made without the channel.
    """

    def __init__(self, config: SModelConfig, context: Context):
        C, e = context.num_classes, config.eps
        W = torch.full((C, C), math.log(e / (C - 1)), device=context.device, dtype=context.dtype)
        W.fill_diagonal_(math.log(1 - e))
        self.channel = context.new_optimizer("channel", {"W": W}, weight_decay=0.0)
        self.freeze = config.freeze
        self._gradient: Tensor | None = None

    @property
    def W(self) -> Tensor:
        """The channel's parameters (C, C)."""
        return self.channel.parameters["W"]

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """-log (p Q)_y of each example, (n,); cross-entropy of trusted ones."""
        return plain_if_trusted(batch, logits, forward_losses(logits, self.W.detach().log_softmax(1), batch.labels))

    @hookimpl
    def begin_stage(self, stage: Stage) -> None:
        """Forget the last gradient: nothing is heard of the forward passes of a plain stage."""
        self._gradient = None

    @hookimpl
    def follow_forward(self, step: Step) -> None:
        """Differentiate the batch's mean loss with respect to W."""
        self._gradient = None
        if step.source == "train" and step.epoch >= self.freeze:
            with torch.enable_grad():
                W = self.W.detach().requires_grad_()
                losses = forward_losses(step.logits, W.log_softmax(1), step.labels)
                if step.trusted is not None:
                    # their labels did not go through the channel
                    losses = losses.masked_fill(step.trusted, 0)
            (self._gradient,) = torch.autograd.grad(losses.sum() / step.n, W)

    @hookimpl
    def follow_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Move W, now that the network has moved with the channel as it was."""
        if self._gradient is not None:
            self.channel.step({"W": self._gradient})
