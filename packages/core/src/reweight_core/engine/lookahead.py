"""Looking ahead: how good is the clean batch after one virtual step with a given logit gradient D'?

    theta_hat(D') = theta - alpha J^T D'
    d objective(theta_hat) / d D' = - alpha J v,    v = d objective / d theta_hat

D' is a constant at theta, so no second-order graph is needed: `Linearised` takes the product J v, exactly by one
forward-mode pass (``jvp``), approximately by one more forward pass (``fd``), or for the last linear layer alone in
closed form (``head``). `DoubleBackward` differentiates through the virtual step in the textbook way; it is the
reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import attrs
import torch
from torch import Tensor

from reweight_core.data.inputs import Inputs
from reweight_core.engine.head import Head
from reweight_core.engine.passes import Direction, Passes
from reweight_core.engine.virtual_step import VirtualStep
from reweight_core.machine.together import ALONE, Share, Together


class LookAhead(Protocol):
    """A virtual step that was taken.

    Attributes:
        parameters: theta_hat by name; of the head alone, if only that takes the step.
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


@attrs.frozen(eq=False)
class LookAheadRequest:
    """What a step asks of a look-ahead.

    Attributes:
        passes: the network.
        inputs: those of the meta batch.
        D_prime: gives the logit gradient (n, C). Where no virtual step is taken it is called only when the look-ahead
            is closed, so that the meta batch's graph is gone before the training batch's is made.
        update: rule of the virtual step; None for no step, theta_hat = theta.
        rate: factor of the derivative, a tensor without dimensions.
        together: the processes of the run. What `close` is given is then the mean of this process's share.
        shares: which parts of which batches `inputs` are, in several processes: of the meta batch, and of what follows.
    """

    passes: Passes
    inputs: Inputs
    D_prime: Callable[[], Tensor]
    update: VirtualStep | None
    rate: Tensor
    together: Together = ALONE
    shares: Sequence[Share] = ()

    def share_of(self, objective: Tensor) -> Tensor:
        """Return what this process adds to the objective of the whole meta batch."""
        if self.together.size == 1:
            return objective
        of_meta = self.shares[0]
        return of_meta.own / of_meta.n * objective


_VALUE = ""
"""Under which the objective's value goes round with v; no parameter has this name."""


class Linearised:
    """The look-ahead by one product J v.

    Args:
        request: what is asked for.
        network: the passes of the whole network, or of its head alone.
        product: gives J v, (n, C), for a direction v.
    """

    def __init__(self, request: LookAheadRequest, network: Passes | Head, product: Callable[[Direction], Tensor]):
        self.value: Tensor | None = None
        self._request, self._product = request, product
        self._slopes: dict[str, Tensor] = {}
        self.parameters = {name: p.detach() for name, p in network.parameters.items()}
        if request.update is not None:
            gradient = request.together.totals(network.pullback(request.D_prime().detach()))
            for name, p in network.parameters.items():
                direction, slope = request.update.direction(p, gradient[name])
                self.parameters[name] = p.detach() - request.update.rate * direction
                if slope is not None:
                    self._slopes[name] = slope
        for theta_hat in self.parameters.values():
            theta_hat.requires_grad_()
        self.logits = network.forward_at(self.parameters, request.inputs, request.shares)

    def close(self, objective: Tensor) -> Tensor:
        """See `LookAhead.close`."""
        objective = self._request.share_of(objective)
        gradients = torch.autograd.grad(objective, list(self.parameters.values()), materialize_grads=True)
        v = dict(zip(self.parameters, gradients, strict=True))
        v = self._request.together.totals(v | {_VALUE: objective.detach()})
        self.value = v.pop(_VALUE)
        v |= {name: slope * v[name] for name, slope in self._slopes.items()}
        # first: where the training batch's pass has not run yet, it can take the product with it
        Jv = self._product(v)
        D_prime = self._request.D_prime()
        Jv = Jv.to(D_prime.dtype)
        surrogate = self.value - self._request.rate * ((D_prime - D_prime.detach()) * Jv).sum()
        if surrogate.requires_grad:
            surrogate.register_hook(_refuse_second_derivative)
        return surrogate


class DoubleBackward:
    """The look-ahead by differentiating through the virtual step (strategy ``double``)."""

    def __init__(self, request: LookAheadRequest):
        self.value: Tensor | None = None
        self._request = request
        gradient = request.together.totals(request.passes.pullback(request.D_prime(), create_graph=True))
        self.parameters = {}
        for name, p in request.passes.parameters.items():
            direction, step = gradient[name], torch.zeros_like(p)
            if request.update is not None:
                direction, _ = request.update.direction(p, gradient[name])
                step = request.update.rate * direction.detach()
            # the value of the virtual step and the rate of its derivative may differ
            self.parameters[name] = p.detach() - step - request.rate * (direction - direction.detach())
        self.logits = request.passes.forward_at(self.parameters, request.inputs, request.shares)

    def close(self, objective: Tensor) -> Tensor:
        """See `LookAhead.close`."""
        share = self._request.share_of(objective)
        self.value = self._request.together.total(share.detach())
        return objective if share is objective else self.value + (share - share.detach())


class HeadLookAhead(Linearised):
    """The look-ahead with the last linear layer alone (strategy ``head``)."""

    def __init__(self, request: LookAheadRequest):
        self._head = Head(request.passes)
        super().__init__(request, self._head, self._head.pushforward)

    @property
    def training_logits(self) -> Tensor:
        """Logits (n, C) of the training batch under theta_hat, on the features of the real pass, detached."""
        return self._head.training_logits_at(self.parameters).detach()


FD_LENGTH = 3e-4
"""Distance along v where ``--lookahead fd`` is asked for and none is measured."""


@attrs.frozen
class Strategy:
    """A way to look ahead.

    Attributes:
        start: begins a look-ahead.
        head_alone: whether it changes the last linear layer alone. The meta batch's features can then be computed
            before the training batch's pass, and take least memory there.
        takes_tangents: whether it takes tangents through the real pass.
    """

    start: Callable[[LookAheadRequest], LookAhead]
    head_alone: bool = False
    takes_tangents: bool = False


def jvp(request: LookAheadRequest) -> LookAhead:
    """Look ahead exactly, by forward-mode differentiation."""
    return Linearised(request, request.passes, request.passes.pushforward)


def finite_difference(length: float) -> Strategy:
    """Return the way to look ahead by a difference of logits at this distance along v."""

    def fd(request: LookAheadRequest) -> LookAhead:
        return Linearised(request, request.passes, partial(request.passes.difference, length=length))

    return Strategy(fd)


STRATEGIES: dict[str, Strategy] = {
    "jvp": Strategy(jvp, takes_tangents=True),
    "fd": finite_difference(FD_LENGTH),
    "head": Strategy(HeadLookAhead, head_alone=True),
    "double": Strategy(DoubleBackward),
}
"""By the name of ``--lookahead``."""


@attrs.frozen
class Choice:
    """A look-ahead that was chosen.

    Attributes:
        name: ``jvp``, ``fd``, ``head`` or ``double``; ``none`` for a method that does not look ahead.
        length: distance along v of ``fd``, else None.
        error: relative error of D' of ``fd`` against ``jvp`` when it was last measured, else None.
    """

    name: str
    length: float | None = None
    error: float | None = None

    @property
    def strategy(self) -> Strategy | None:
        """The way to look ahead, or None for none."""
        if self.length is not None:
            return finite_difference(self.length)
        return STRATEGIES.get(self.name)


def _refuse_second_derivative(gradient: Tensor) -> None:
    # autograd leaves gradient mode on inside a backward pass only when a graph of it is wanted
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the look-ahead is differentiable once: its second derivative (create_graph=True) is not defined "
            "here; use --lookahead double"
        )
