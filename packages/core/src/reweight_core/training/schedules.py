"""How the learning rate of a stage falls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

from reweight_core.errors import UserError

Schedule = Callable[[float], float]
"""Gives the factor of the initial rate from the epochs that are done, a fraction within an epoch."""


def schedule(name: str, epochs: float, drops: str | None, drop_factor: float) -> Schedule:
    """Return the schedule of this name (``--schedule``) for a stage of this many epochs.

    Raises:
        UserError: if `drops`, which only ``step`` uses, is not a list of epochs.
    """
    if name == "cosine":
        return lambda done: cosine(math.floor(done), epochs)
    if name == "cyclic":
        return cyclic
    if name == "constant":
        return lambda done: 1.0
    try:
        at = [0.8 * epochs, 0.9 * epochs] if drops is None else [float(part) for part in drops.split(",")]
    except ValueError:
        at = []
    if not at or not all(0 < drop < math.inf for drop in at):
        raise UserError(f"--lr-drops {drops}: must be epochs above 0 separated by commas, e.g. 160,180")
    if max(at) >= epochs:
        warnings.warn(f"--lr-drops {drops}: not all of these epochs come in a run of {epochs}", stacklevel=2)
    return lambda done: drop_factor ** sum(done >= drop for drop in at)


def cosine(done: float, epochs: float) -> float:
    """Return (1 + cos(pi done / epochs)) / 2."""
    return (1 + math.cos(math.pi * done / epochs)) / 2


def cyclic(done: float) -> float:
    """Return the factor of half-cosines of 1, 2, 4, ... epochs, each from 0.9 of the peak before it to 0 (FSR)."""
    cycle = math.floor(math.log2(done + 1))
    start, length = 2**cycle - 1, 2**cycle
    return 0.9**cycle * cosine(done - start, length)
