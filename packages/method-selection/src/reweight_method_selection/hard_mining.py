"""Hard mining, a baseline of L2RW (Ren et al., ICML 2018, section 4.1, figure 2), as its official code has it."""

import warnings

import torch
from torch import Tensor

from reweight_core import Context, Step, hookimpl


class HardMining:
    """Trains on all examples of the minority classes, and on as many of the others, those of the largest loss."""

    def __init__(self, config: object, context: Context):
        counts = torch.bincount(context.train.labels, minlength=context.num_classes)
        self.minority = (counts > 0) & (counts * context.num_classes < context.train_size)
        if not self.minority.any():
            warnings.warn(
                "method 'hard-mining' is for unbalanced classes: all have as many examples, so all are kept",
                stacklevel=2,
            )
            self.minority = torch.ones_like(self.minority)

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """The same weight for every example that is kept, n / (number kept), else 0; shape (n,)."""
        minority = step.whole(self.minority.index_select(0, step.labels).to(step.losses.dtype)) > 0
        kept = hard_examples(step.whole(step.losses), minority).to(step.losses.dtype)
        return step.part(step.n * kept / kept.sum())


def hard_examples(losses: Tensor, minority: Tensor) -> Tensor:
    """Say which examples of a batch are kept, bool (n,).

    Args:
        losses: (n,).
        minority: which examples are of a minority class, bool (n,). With k of them (1 if there are none), the k others
            of the largest loss are kept too.
    """
    k = minority.sum().clamp(min=1)
    # the minority takes no place among the others
    order = torch.where(minority, -torch.inf, losses).argsort(descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return minority | (rank < k)
