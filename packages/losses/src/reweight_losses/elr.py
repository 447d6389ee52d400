"""Early-learning regularisation (Liu et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reweight_core import Batch, Context, Step, cross_entropy, hookimpl
from reweight_losses.options import ELRConfig

CLAMP = 1e-4
"""Probabilities are kept this far from 0 and 1, as in the official code; it bounds the logarithm."""


class ELR:
    """CE + lambda log(1 - <t, p>), t a moving average of what the network predicted for the example (section 4).

    t begins at 0 and is brought up to date before the loss uses it. It pulls the prediction towards what the
    example was taken for early, before wrong labels are memorised. Where examples are not those of the training set
    there is no t, and the loss is cross-entropy.
    """

    def __init__(self, config: ELRConfig, context: Context):
        self.beta, self.lambda_ = config.beta, config.lambda_
        shape = (context.train_size, context.num_classes)
        self.t = context.by_example(torch.zeros(shape, device=context.device, dtype=context.dtype))

    @hookimpl
    def follow_forward(self, step: Step) -> None:
        """t <- beta t + (1 - beta) p."""
        if step.source != "train":
            return
        p = step.probabilities.clamp(CLAMP, 1 - CLAMP)
        p = p / p.sum(1, keepdim=True)
        t = self.beta * self.t[step.ids] + (1 - self.beta) * p
        self.t.index_copy_(0, step.ids, t.to(self.t.dtype))

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """CE + lambda log(1 - <t, p>) of each example, (n,)."""
        ce = cross_entropy(batch, logits)
        if batch.source != "train":
            return ce
        p = logits.softmax(1).clamp(CLAMP, 1 - CLAMP)
        return ce + self.lambda_ * torch.log(1 - (self.t[batch.ids] * p).sum(1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return t."""
        return {"t": self.t}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.t.copy_(state["t"])
