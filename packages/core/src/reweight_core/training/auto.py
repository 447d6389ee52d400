"""Comparing look-aheads by what counts: the weights that a method gives a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import attrs
import torch
from torch import Tensor

from reweight_core.engine.lookahead import STRATEGIES, Strategy, finite_difference
from reweight_core.machine.precision import set_products

if TYPE_CHECKING:
    from reweight_core.training.loop import Trainer

LENGTHS = (1e-3, 1e-4, 1e-5)
"""Distances along v that ``fd`` is tried at."""

TOLERANCE = 0.01
"""Relative error of the weights up to which ``auto`` takes ``fd``, and TF32."""


@attrs.frozen
class Choice:
    """A look-ahead that was chosen.

    Attributes:
        name: ``jvp``, ``fd``, ``head`` or ``double``; ``none`` for a method that does not look ahead.
        length: distance along v of ``fd``, else None.
        error: relative error of the weights of ``fd`` against ``jvp`` when it was last measured, else None.
    """

    name: str
    length: float | None = None
    error: float | None = None

    @property
    def strategy(self) -> Strategy:
        """The way to look ahead."""
        if self.length is not None:
            return finite_difference(self.length)
        return STRATEGIES.get(self.name, STRATEGIES["jvp"])


def choose(trainer: Trainer, size: int) -> Choice:
    """Choose for ``auto``, by measured error on the batch that was fed last; the training state stays as it is.

    Args:
        trainer: the run.
        size: size of the batch.
    """
    exact = weights_under(trainer, size, STRATEGIES["jvp"])
    if exact is None:
        return Choice("none")
    errors = {}
    for length in LENGTHS:
        weights = weights_under(trainer, size, finite_difference(length))
        assert weights is not None
        errors[length] = relative_error(weights, exact)
    best = min(errors, key=errors.__getitem__)
    return Choice("fd", best, errors[best]) if errors[best] <= TOLERANCE else Choice("jvp", None, errors[best])


def choose_precision(trainer: Trainer, size: int) -> Literal["fp32", "tf32"]:
    """Choose for ``--precision auto`` on a GPU, by the weights of the batch that was fed last; set the products so.

    Args:
        trainer: the run.
        size: size of the batch.
    """
    strategy = trainer.step.strategy
    set_products("ieee")
    exact = weights_under(trainer, size, strategy)
    set_products("tf32")
    rounded = weights_under(trainer, size, strategy)
    if exact is None or rounded is None or relative_error(rounded, exact) <= TOLERANCE:
        return "tf32"
    set_products("ieee")
    return "fp32"


def weights_under(trainer: Trainer, size: int, strategy: Strategy) -> Tensor | None:
    """Return the weights that the method would give the batch fed last, or None if it does not look ahead."""
    with _untouched(trainer):
        trainer.step.strategy = strategy
        step = trainer.step.open(size)
        weights = trainer.hooks.generate_weights(step)
        looked, step.look = step.look is not None, None
        return weights if looked else None


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected|, 0 if both are 0."""
    norm = expected.double().norm()
    return ((found.double() - expected.double()).norm() / torch.where(norm == 0, 1, norm)).item()


@contextmanager
def _untouched(trainer: Trainer) -> Iterator[None]:
    """Bring everything that weighting a batch changes back to what it was."""
    strategy = trainer.step.strategy
    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    generators = {name: generator.get_state() for name, generator in trainer.step.generators.items()}
    parts = {name: tensor.clone() for name, tensor in trainer.state_of_parts().items()}
    try:
        yield
    finally:
        trainer.step.strategy = strategy
        for name, buffer in trainer.model.named_buffers():
            buffer.copy_(buffers[name])
        for name, generator in trainer.step.generators.items():
            generator.set_state(generators[name])
        trainer.load_state_of_parts(parts)
