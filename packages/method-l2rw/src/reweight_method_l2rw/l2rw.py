"""L2RW: Algorithm 1 of Ren et al., "Learning to Reweight Examples for Robust Deep Learning" (ICML 2018)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reweight_core import Context, Step, hookimpl
from reweight_method_l2rw.options import L2RWConfig


class L2RW:
    """Weights each example by how much a step on it would improve the clean batch, rectified and normalised."""

    def __init__(self, config: L2RWConfig, context: Context):
        self.clean_decay = context.weight_decay if config.clean_decay else 0.0
        self.max_weight = config.max_weight or math.inf

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """Lines 5-11 of Algorithm 1, on the scale where 1 is plain training: n w_i, shape (n,)."""
        # line 5: epsilon <- 0;  l_f <- sum_i epsilon_i C(y_i, f_i), whose logit gradient is epsilon_i n D_i
        epsilon = torch.zeros_like(step.labels, dtype=step.dtype, requires_grad=True)
        # lines 6-7: theta_hat = theta, because epsilon is 0; only the direction of the derivative is used
        look = step.look_ahead(lambda: step.n * epsilon[:, None] * step.D, virtual_step=False, unit_rate=True)
        # lines 8-9, with the weight decay that the official code adds to the clean loss
        l_g = step.meta_objective(look.logits)
        if self.clean_decay:
            l_g = l_g + self.clean_decay / 2 * sum(p.square().sum() for p in look.parameters.values() if p.dim() > 1)
        # line 10: the gradient with respect to epsilon
        (gradient,) = torch.autograd.grad(look.close(l_g), epsilon)
        # line 11; line 12 takes sum_i w_i l_i, which is the mean of n w_i l_i; the bound is ours
        return (step.n * rectify_and_normalise(-gradient, step.total)).clamp(max=self.max_weight)


def rectify_and_normalise(u: Tensor, total: Callable[[Tensor], Tensor] = lambda part: part) -> Tensor:
    """Return max(u, 0) divided by its sum, or zeros if nothing is positive (Eq. 8 and 9); shape (n,).

    Args:
        u: of the examples of a batch, or of a process's share of it.
        total: gives the sum over the whole batch from that over these examples.
    """
    w = u.clamp(min=0)
    norm = total(w.sum())
    return w / torch.where(norm == 0, 1, norm)
