"""Label-distribution-aware margins (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

from torch import Tensor

from reweight_core import Batch, Context, cross_entropy, hookimpl, target_rows
from reweight_losses.class_balanced import DeferredWeights
from reweight_losses.class_counts import class_counts, effective_number_weights
from reweight_losses.options import LDAMConfig

SCALE = 30
"""Factor s of the cosines in the logits of ``--head cosine``."""

BETA = 0.9999
"""beta of the deferred class weights."""


class LDAM:
    """Cross-entropy of s (cos - m_y y), with margins m_c proportional to N_c^(-1/4) (section 3.2).

    The logits of ``--head cosine`` are s cos already. The largest margin, of the smallest class, is an option. From
    an epoch on, class weights of the effective number of examples are added (LDAM-DRW, Algorithm 1), divided by their
    sum over the batch as in the official code.
    """

    def __init__(self, config: LDAMConfig, context: Context):
        N, self.together = class_counts(context), context.together
        m = N**-0.25
        self.margins = (config.max_margin * SCALE * m / m.max()).to(context.device, context.dtype)
        start = int(0.8 * context.epochs) if config.reweight_from is None else config.reweight_from
        self.weights = DeferredWeights(effective_number_weights(N, BETA), start, context.device, context.dtype)
        self.state_dict, self.load_state_dict = self.weights.state_dict, self.weights.load_state_dict

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """w_y CE of each example with the margin taken from the logit at its label, (n,)."""
        y = target_rows(batch, len(self.margins)).to(logits.dtype)
        w = self.weights.w[batch.labels]
        return w / (self.together.total(w.sum()) / batch.n) * cross_entropy(batch, logits - self.margins * y)

    @hookimpl
    def finish_epoch(self, epoch: int) -> None:
        """Begin to weight if it is time."""
        self.weights.finish_epoch(epoch)
