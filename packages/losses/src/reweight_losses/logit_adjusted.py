"""Logit-adjusted loss (Menon et al., ICLR 2021), and balanced softmax (Ren et al., NeurIPS 2020), its case tau = 1."""

from __future__ import annotations

from torch import Tensor

from reweight_core import Batch, Context, NoOptions, cross_entropy, hookimpl
from reweight_losses.class_counts import class_counts
from reweight_losses.options import LogitAdjustedConfig


class LogitAdjusted:
    """Cross-entropy of l + tau log N_c, N_c of the observed labels (Menon et al., Eq. 10); predictions are made with l.

    Row: softmax(l + tau log N_c) - y.
    """

    def __init__(self, tau: float, context: Context):
        N = class_counts(context)
        # softmax ignores a common factor; with this one equal counts change nothing
        self.adjustment = (tau * (N / N.max()).log()).to(context.device, context.dtype)

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """Cross-entropy of the adjusted logits, (n,)."""
        return cross_entropy(batch, logits + self.adjustment)


def balanced_softmax(config: NoOptions, context: Context) -> LogitAdjusted:
    """Return balanced softmax (Ren et al., Theorem 1): softmax(l)_c proportional to N_c exp(l_c)."""
    return LogitAdjusted(1.0, context)


def logit_adjusted(config: LogitAdjustedConfig, context: Context) -> LogitAdjusted:
    """Return the logit-adjusted loss."""
    return LogitAdjusted(config.tau, context)
