"""GDW: Algorithm 1 of Chen et al., "Generalized Data Weighting via Class-Level Gradient Manipulation" (NeurIPS 2021).

The clamps, the constraint in the first stage and Adam for phi are those of the official code.
"""

import torch
from torch import Tensor

from reweight_core import Context, Step, hookimpl
from reweight_method_gdw.options import GDWConfig

MAX_PROBABILITY = 0.999
"""Probabilities count as at most this much (without renormalising), so that Eq. 4 never divides by zero."""

MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
"""Bounds of the second-stage weights before their constraint."""


class GDW:
    """Weights every class-level part of an example's gradient."""

    def __init__(self, config: GDWConfig, context: Context):
        self.V = config.build(context)
        # all that it carries from step to step
        self.state_dict, self.load_state_dict = self.V.state_dict, self.V.load_state_dict
        # spread over n C entries, so that ten times the classes need ten times the step
        self.eta_w = 10 * context.num_classes if config.eta_w is None else config.eta_w
        self.c = config.clip

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """Lines 4-7 of Algorithm 1: the constrained class-level weights omega', shape (n, C)."""
        r, y = residuals(step), step.one_hot
        # line 4: the first stage, the weighting network's output once for each class
        v = self.V(step.losses)
        omega = constrain(v[:, None].expand_as(r), r, y)
        if not step.looks_ahead:
            return omega.detach()
        # line 5: Eq. 2 and the virtual step of Eq. 9; g and |g|_1 take their direction only, so the rate is left out
        meta_loss = step.meta_loss(manipulate(omega, r, step.n), unit_rate=True)
        g, *phi_gradients = torch.autograd.grad(meta_loss, [omega, *self.V.phi])
        # line 6: Eq. 10
        self.V.descend([step.lr * gradient for gradient in phi_gradients])
        # line 7: Eq. 11, then Eq. 4
        norm = step.total(g.abs().sum())
        change = (self.eta_w * g / torch.where(norm == 0, 1, norm)).clamp(-self.c, self.c)
        omega_prime = (omega.detach() - change).clamp(MIN_WEIGHT, MAX_WEIGHT)
        return constrain(omega_prime, r, y)

    @hookimpl
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """Line 8 of Algorithm 1: D' of the real update (Eq. 12), shape (n, C); each row sums to 0."""
        return manipulate(weights, residuals(step), step.n)

    @hookimpl
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """How much the gradient at the other classes' logits is scaled, sum |D'| / sum |D| over them, (n,)."""
        assert step.method_gradient is not None, "it is known before weights are recorded"
        others = 1 - step.one_hot
        before = (step.D * others).abs().sum(1)
        after = (step.method_gradient * others).abs().sum(1)
        # the gradient of an example that is fitted perfectly is 0, and the factor unknown
        at_label = weights.gather(1, step.labels[:, None]).squeeze(1)
        return torch.where(before > 0, after / before, at_label)


def residuals(step: Step) -> Tensor:
    """Return the rows r = n D that are weighted, p - y for cross-entropy, with the official clamp of p, (n, C).

    For any loss: the entry at a class other than the label is that of p clamped to `MAX_PROBABILITY`, in proportion,
    and the entry at the label is minus the sum of the unclamped others, but no nearer to 0 than 1 - `MAX_PROBABILITY`.
    """
    r, p = step.n * step.D, step.probabilities
    others = r * (1 - step.one_hot)
    total = others.sum(1, keepdim=True)
    distance = total.abs().clamp(min=1 - MAX_PROBABILITY)
    at_label = torch.where(total < 0, distance, -distance)
    return others * (MAX_PROBABILITY / p.clamp(min=MAX_PROBABILITY)) + at_label * step.one_hot


def constrain(omega: Tensor, r: Tensor, y: Tensor) -> Tensor:
    """Set the weight at the label so that the weighted gradient of each example sums to 0 (Eq. 4).

    Args:
        omega: class-level weights (n, C).
        r: `residuals` (n, C).
        y: labels as rows (n, C).
    """
    omega_t = (omega * r * (1 - y)).sum(1) / -(r * y).sum(1)
    return torch.where(y == 1, omega_t[:, None], omega)


def manipulate(omega: Tensor, r: Tensor, n: int) -> Tensor:
    """Return the manipulated logit gradient omega r / n of a batch of n examples (Eq. 2), shape (n, C)."""
    return omega * r / n
