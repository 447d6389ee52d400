"""What ``auto`` chooses, by measured error of what counts: the manipulated logit gradient D' that a step would take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import attrs
import torch
from torch import Tensor, nn

from reweight_core.engine.lookahead import Choice
from reweight_core.engine.stage import TRAINING, Stage
from reweight_core.engine.weighing import Weighing
from reweight_core.machine.precision import set_products
from reweight_core.machine.together import ALONE, Together

LENGTHS = (1e-3, 1e-4, 1e-5)
"""Distances along v that ``fd`` is tried at."""

TOLERANCE = 0.01
"""Relative error of D' up to which ``auto`` takes ``fd``, and TF32."""


@attrs.frozen(eq=False)
class Tried:
    """What a step would do with the batch that was fed last.

    Attributes:
        weights: the method's weights, (n,) or (n, C).
        D_prime: the manipulated logit gradient, (n, C).
        looked_ahead: whether the method looked ahead.
    """

    weights: Tensor
    D_prime: Tensor
    looked_ahead: bool


def choose_lookahead(step: Weighing, size: int, stage: Stage = TRAINING, epoch: int = 0) -> Choice:
    """Choose between ``fd`` and ``jvp`` on the batch that was fed last; the training state stays as it is.

    Args:
        step: what steps are taken with.
        size: size of the batch.
        stage: the stage that it was fed in.
        epoch: number of epochs finished.
    """
    exact = tried(step, size, Choice("jvp"), stage, epoch)
    if not exact.looked_ahead:
        # it may later: nothing is known of its error then
        return Choice("jvp")
    errors = {
        length: relative_error(
            tried(step, size, Choice("fd", length), stage, epoch).D_prime, exact.D_prime, step.together
        )
        for length in LENGTHS
    }
    # an error that is not finite says as little as none
    finite = {length: error for length, error in errors.items() if math.isfinite(error)}
    if not finite:
        return Choice("jvp")
    best = min(finite, key=finite.__getitem__)
    return Choice("fd", best, finite[best]) if finite[best] <= TOLERANCE else Choice("jvp", None, finite[best])


def choose_precision(step: Weighing, size: int, stage: Stage = TRAINING) -> Literal["fp32", "tf32"]:
    """Choose for ``--precision auto`` on a GPU, by D' of the batch that was fed last; set the products so.

    Args:
        step: what steps are taken with.
        size: size of the batch.
        stage: the run's first.
    """
    set_products("fp32")
    exact = tried(step, size, step.lookahead, stage)
    set_products("tf32")
    if not exact.looked_ahead:
        return "tf32"
    rounded = tried(step, size, step.lookahead, stage)
    if relative_error(rounded.D_prime, exact.D_prime, step.together) <= TOLERANCE:
        return "tf32"
    set_products("fp32")
    return "fp32"


def tried(step: Weighing, size: int, lookahead: Choice, stage: Stage = TRAINING, epoch: int = 0) -> Tried:
    """Do what a step does up to its update with the batch fed last, and bring everything back to what it was."""
    with _untouched(step):
        step.lookahead = lookahead
        opened = step.open(size, stage, epoch=epoch)
        step.weigh(opened)
        assert opened.weights is not None and opened.D_prime is not None, "the step was weighed"
        looked_ahead, opened.look = opened.look is not None, None
        return Tried(opened.weights, opened.D_prime, looked_ahead)


def relative_error(found: Tensor, expected: Tensor, together: Together = ALONE) -> float:
    """Return |found - expected| / |expected|, 0 if both are 0; of the whole batch, where several processes have it."""
    if together.size == 1:
        norm, distance = expected.double().norm(), (found.double() - expected.double()).norm()
    else:
        squares = [expected.double().square().sum(), (found.double() - expected.double()).square().sum()]
        norm, distance = together.total(torch.stack(squares)).sqrt()
    return (distance / torch.where(norm == 0, 1, norm)).item()


@contextmanager
def _untouched(step: Weighing) -> Iterator[None]:
    """Bring everything that a plugin or a pass may change back to what it was."""
    lookahead = step.lookahead
    network = {name: tensor.detach().clone() for name, tensor in _named_tensors(step.model)}
    generators = {name: generator.get_state() for name, generator in step.generators.items()}
    plugins = {name: tensor.clone() for name, tensor in step.hooks.state_dict().items()}
    try:
        yield
    finally:
        step.lookahead = lookahead
        for name, tensor in _named_tensors(step.model):
            tensor.detach().copy_(network[name])
        for name, generator in step.generators.items():
            generator.set_state(generators[name])
        step.hooks.load_state_dict(plugins)


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give the trained parameters and the buffers of a network, those too that its state dict leaves out."""
    yield from ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    yield from model.named_buffers()
