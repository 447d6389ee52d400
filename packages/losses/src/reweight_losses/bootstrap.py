"""Bootstrapping (Reed et al., ICLR workshop 2015)."""

from __future__ import annotations

from torch import Tensor

from reweight_core import Batch, Context, cross_entropy, hookimpl
from reweight_losses.options import BootstrapConfig

PUBLISHED_BETA = {"hard": 0.8, "soft": 0.95}


class HardBootstrap:
    """-sum_c [beta y + (1 - beta) z]_c log p_c, z the predicted class, which is held fixed (section 3.2).

    Row: p - beta y - (1 - beta) z.
    """

    def __init__(self, beta: float):
        self.beta = beta

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """Cross-entropy with the mixed target, (n,)."""
        log_p = logits.log_softmax(1)
        predicted = -log_p.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        return self.beta * cross_entropy(batch, logits) + (1 - self.beta) * predicted


class SoftBootstrap:
    """-sum_c [beta y + (1 - beta) p]_c log p_c, differentiated through both p (section 3.2).

    Row: beta (p - y) - (1 - beta) p (log p - <p, log p>). With the target's p held fixed nothing but the factor beta
    would remain: the second term is the entropy of p.
    """

    def __init__(self, beta: float):
        self.beta = beta

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """Cross-entropy with the mixed target, (n,)."""
        log_p = logits.log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1)
        return self.beta * cross_entropy(batch, logits) + (1 - self.beta) * entropy


def build(config: BootstrapConfig, context: Context) -> HardBootstrap | SoftBootstrap:
    """Return the loss that the options ask for."""
    beta = PUBLISHED_BETA[config.target] if config.beta is None else config.beta
    return HardBootstrap(beta) if config.target == "hard" else SoftBootstrap(beta)
