"""Symmetric cross-entropy (Wang et al., ICCV 2019)."""

from __future__ import annotations

import math

from torch import Tensor

from reweight_core import Batch, Context, cross_entropy, hookimpl, target_rows
from reweight_losses.options import SCEConfig

LOG_OF_ZERO = math.log(1e-4)
"""What stands for the logarithm of a target's zeros, as in the official code (the paper: -4)."""


class SCE:
    """alpha CE + beta RCE, RCE = -sum_c p_c log y_c (section 3).

    Row: (alpha - beta log(1e-4) p_y) (p - y) for a label.
    """

    def __init__(self, config: SCEConfig, context: Context):
        self.alpha, self.beta, self.num_classes = config.alpha, config.beta, context.num_classes

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """alpha CE + beta RCE of each example, (n,)."""
        log_y = target_rows(batch, self.num_classes).to(logits.dtype).log().clamp(min=LOG_OF_ZERO)
        reverse = -(logits.softmax(1) * log_y).sum(1)
        return self.alpha * cross_entropy(batch, logits) + self.beta * reverse
