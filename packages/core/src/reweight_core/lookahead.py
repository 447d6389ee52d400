"""Looking ahead: how good is the clean batch after one virtual step with a given logit gradient D'?

    theta_hat(D') = theta - alpha J^T D'
    d objective(theta_hat) / d D' = - alpha J v,    v = d objective / d theta_hat

D' is a constant at theta, so no second-order graph is needed: `ForwardMode` takes the product J v by one
forward-mode pass. `DoubleBackward` differentiates through the virtual step in the textbook way; it is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from reweight_core.passes import Passes


class LookAhead(Protocol):
    """A virtual step that was taken.

    Attributes:
        parameters: theta_hat by name.
        logits: logits of the meta batch under theta_hat, shape (m, C).
        value: value of the objective, detached; None until `close` was called.
    """

    parameters: dict[str, Tensor]
    logits: Tensor
    value: Tensor | None

    def close(self, objective: Tensor) -> Tensor:
        """Return the value of the objective as a scalar that is differentiable, once, in what D' was built from.

        Args:
            objective: any scalar computed from `logits` and `parameters`.
        """


class ForwardMode:
    """The look-ahead by one Jacobian-vector product (strategy ``jvp``); arguments as `Strategy`."""

    def __init__(self, passes: Passes, inputs: Tensor, D_prime: Tensor, step_size: Tensor | None, rate: Tensor):
        self._passes, self._D_prime, self._rate = passes, D_prime, rate
        self.value: Tensor | None = None
        theta = passes.parameters
        if step_size is None:
            self.parameters = {name: p.detach().requires_grad_() for name, p in theta.items()}
        else:
            gradient = passes.pullback(D_prime.detach())
            self.parameters = {
                name: (p.detach() - step_size * gradient[name]).requires_grad_() for name, p in theta.items()
            }
        self.logits = passes.forward_at(self.parameters, inputs)

    def close(self, objective: Tensor) -> Tensor:
        """See `LookAhead.close`."""
        v = torch.autograd.grad(objective, list(self.parameters.values()), materialize_grads=True)
        Jv = self._passes.pushforward(dict(zip(self.parameters, v, strict=True))).to(self._D_prime.dtype)
        self.value = objective.detach()
        surrogate = self.value - self._rate * ((self._D_prime - self._D_prime.detach()) * Jv).sum()
        if surrogate.requires_grad:
            surrogate.register_hook(_refuse_second_derivative)
        return surrogate


class DoubleBackward:
    """The look-ahead by differentiating through the virtual step (strategy ``double``); arguments as `Strategy`."""

    def __init__(self, passes: Passes, inputs: Tensor, D_prime: Tensor, step_size: Tensor | None, rate: Tensor):
        self.value: Tensor | None = None
        gradient = passes.pullback(D_prime, create_graph=True)
        self.parameters = {}
        for name, p in passes.parameters.items():
            taken = 0 if step_size is None else step_size * gradient[name].detach()
            # the value of the virtual step and the rate of its derivative may differ
            change = rate * (gradient[name] - gradient[name].detach())
            self.parameters[name] = p.detach() - taken - change
        self.logits = passes.forward_at(self.parameters, inputs)

    def close(self, objective: Tensor) -> Tensor:
        """See `LookAhead.close`."""
        self.value = objective.detach()
        return objective


Strategy = Callable[[Passes, Tensor, Tensor, Tensor | None, Tensor], LookAhead]
"""Called with the passes, the meta inputs, D' (n, C), the size alpha of the virtual step (None for no step:
theta_hat = theta) and the rate that multiplies the derivative."""

STRATEGIES: dict[str, Strategy] = {"jvp": ForwardMode, "double": DoubleBackward}
"""By the name of ``--lookahead``."""


def _refuse_second_derivative(gradient: Tensor) -> None:
    # autograd leaves gradient mode on inside a backward pass only when a graph of it is wanted
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the look-ahead is differentiable once: its second derivative (create_graph=True) is not defined "
            "with --lookahead jvp; use --lookahead double"
        )
