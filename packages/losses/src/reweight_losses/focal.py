"""Focal loss (Lin et al., ICCV 2017), of a softmax and of a sigmoid for each class."""

from __future__ import annotations

import math
from collections.abc import Generator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reweight_core import Batch, Context, Step, cross_entropy, hookimpl, target_rows
from reweight_losses.class_counts import class_counts, effective_number_weights
from reweight_losses.options import FocalConfig, SigmoidFocalConfig


class Focal:
    """(1 - p_y)^gamma CE, p the softmax of the logits.

    Its gradient is that of cross-entropy with the instance weight
    f = (1-p_y)^gamma - gamma p_y (1-p_y)^(gamma-1) log p_y.
    """

    def __init__(self, config: FocalConfig, context: Context):
        self.gamma = config.gamma

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """(1 - p_y)^gamma CE of each example, (n,)."""
        ce = cross_entropy(batch, logits)
        return _wrong(ce) ** self.gamma * ce

    @hookimpl(wrapper=True)
    def example_weights(self, step: Step, weights: Tensor) -> Generator[None, Tensor, Tensor]:
        """The method's weight times f."""
        recorded = yield
        ce = -step.logits.log_softmax(1).gather(1, step.labels[:, None]).squeeze(1)
        wrong = _wrong(ce)
        f = wrong**self.gamma + self.gamma * torch.exp(-ce) * wrong ** (self.gamma - 1) * ce
        return recorded * f


class SigmoidFocal:
    """w_y sum_c (1 - p_c)^gamma (-log p_c), p_c the probability that a sigmoid gives to what is true of class c.

    The class-balanced focal loss of Cui et al. (CVPR 2019, section 4) with beta > 0, focal loss of Lin et al. with
    beta = 0, when every w is 1. The rows of its gradient do not sum to 0. The bias of the last layer begins at
    -log(C - 1), so that every class begins with the probability 1/C.
    """

    def __init__(self, config: SigmoidFocalConfig, context: Context):
        self.gamma, self.num_classes = config.gamma, context.num_classes
        self.w = effective_number_weights(class_counts(context), config.beta).to(context.device)

    @hookimpl
    def initialise_network(self, model: nn.Module) -> None:
        """Set the bias of the last linear layer with an output for each class, if it has one."""
        heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == self.num_classes]
        if heads and heads[-1].bias is not None:
            nn.init.constant_(heads[-1].bias, -math.log(self.num_classes - 1))

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The loss of each example, (n,)."""
        y = target_rows(batch, self.num_classes).to(logits.dtype)
        # sigmoid(z) is the probability of what is true of each class
        z = (2 * y - 1) * logits
        focal = (self.gamma * F.logsigmoid(-z)).exp() * F.softplus(-z)
        return self.w.to(logits.dtype)[batch.labels] * focal.sum(1)


def _wrong(ce: Tensor) -> Tensor:
    """Return 1 - p_y from the cross-entropy; never 0, where a power below 1 has no derivative."""
    return -torch.expm1(-ce).clamp(max=-torch.finfo(ce.dtype).tiny)
