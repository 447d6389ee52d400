"""GDW: Algorithm 1 of Chen et al., "Generalized Data Weighting via Class-Level Gradient Manipulation" (NeurIPS 2021).

The clamps, the constraint in the first stage and Adam for phi are those of the official code.
"""

import torch
from torch import Tensor

from reweight_core import Context, Step, WeightingNetwork, hookimpl
from reweight_method_gdw import GDWConfig

MAX_PROBABILITY = 0.999
"""Probabilities are clamped to it (without renormalising), so that Eq. 4 never divides by zero."""

MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
"""Bounds of the second-stage weights before their constraint."""


class GDW:
    """Weights every class-level part of an example's gradient."""

    def __init__(self, config: GDWConfig, context: Context):
        self.V = WeightingNetwork(context, config.weight_lr, config.weight_l2, config.weight_hidden)
        self.eta_w, self.c = config.eta_w, config.clip

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """Lines 4-7 of Algorithm 1: the constrained class-level weights omega', shape (n, C)."""
        p, y = clamped(step.probabilities), step.one_hot
        # line 4: the first stage, the weighting network's output once for each class
        v = self.V(step.losses)
        omega = constrain(v[:, None].expand_as(p), p, y)
        if not step.looks_ahead:
            return omega.detach()
        # line 5: Eq. 2 and the virtual step of Eq. 9; g and |g|_1 take their direction only, so the rate is left out
        meta_loss = step.meta_loss(manipulate(omega, p, y), unit_rate=True)
        g, *phi_gradients = torch.autograd.grad(meta_loss, [omega, *self.V.phi])
        # line 6: Eq. 10
        self.V.descend([step.lr * gradient for gradient in phi_gradients])
        # line 7: Eq. 11, then Eq. 4
        norm = g.abs().sum()
        change = (self.eta_w * g / torch.where(norm == 0, 1, norm)).clamp(-self.c, self.c)
        omega_prime = (omega.detach() - change).clamp(MIN_WEIGHT, MAX_WEIGHT)
        return constrain(omega_prime, p, y)

    @hookimpl
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """Line 8 of Algorithm 1: D' of the real update (Eq. 12), shape (n, C); each row sums to 0."""
        return manipulate(weights, clamped(step.probabilities), step.one_hot)

    def state_dict(self) -> dict[str, Tensor]:
        """The weighting network and its optimizer."""
        return self.V.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.V.load_state_dict(state)


def clamped(probabilities: Tensor) -> Tensor:
    """Return the probabilities (n, C), none above `MAX_PROBABILITY`."""
    return probabilities.clamp(max=MAX_PROBABILITY)


def constrain(omega: Tensor, p: Tensor, y: Tensor) -> Tensor:
    """Set the weight at the label so that the weighted gradient of each example sums to 0 (Eq. 4).

    Args:
        omega: class-level weights (n, C).
        p: clamped probabilities (n, C).
        y: labels as rows (n, C).
    """
    omega_t = (omega * p * (1 - y)).sum(1) / (1 - (p * y).sum(1))
    return torch.where(y == 1, omega_t[:, None], omega)


def manipulate(omega: Tensor, p: Tensor, y: Tensor) -> Tensor:
    """Return the manipulated logit gradient omega (p - y) / n of a batch (Eq. 2), shape (n, C)."""
    return omega * (p - y) / len(p)
