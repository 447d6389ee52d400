"""The loss that a run trains with unless another is chosen: cross-entropy."""

from torch import Tensor
from torch.nn import functional as F

from reweight_core.data.batch import Batch


def cross_entropy(batch: Batch, logits: Tensor) -> Tensor:
    """Return the cross-entropy of each example with its target, or its label if it has none, (n,)."""
    if batch.targets is None:
        return F.cross_entropy(logits, batch.labels, reduction="none")
    return -(batch.targets.to(logits.dtype) * logits.log_softmax(1)).sum(1)
