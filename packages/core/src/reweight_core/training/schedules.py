"""How the learning rate of a stage rises and falls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

from reweight_core.config.run_config import RunConfig
from reweight_core.engine.stage import Stage
from reweight_core.errors import UserError
from reweight_core.plugins.guard import guarded_schedule

Schedule = Callable[[float], float]
"""Gives the factor of the initial rate from the epochs that are done, a fraction within an epoch."""


def schedules(config: RunConfig, stages: Sequence[Stage], lengths: Sequence[float], planner: str) -> list[Schedule]:
    """Return the schedule of every stage: its own, or the run's, fitted to it; the first begins with the warm-up.

    Args:
        config: the options.
        stages: the stages.
        lengths: their numbers of epochs, fractions for stages that are given in steps.
        planner: kind and name of the plugin that planned them.

    Raises:
        UserError: if an option of the schedule has no meaning.
    """
    if config.lr_floor > config.lr:
        raise UserError(f"--lr-floor {config.lr_floor}: must not be above --lr, which is {config.lr}")
    found = [
        guarded_schedule(stage.schedule, planner)
        if stage.schedule
        else of_the_run(config, length, config.lr_floor / stage.lr if stage.lr else 0.0)
        for stage, length in zip(stages, lengths, strict=True)
    ]
    if config.schedule != "step" and config.lr_drops is not None:
        warnings.warn(f"--lr-drops {config.lr_drops}: does nothing here, without --schedule step", stacklevel=3)
    elif config.lr_drops is not None:
        longest, drops = max(lengths), drops_of(config, max(lengths))
        if max(drops) >= longest:
            warnings.warn(
                f"--lr-drops {config.lr_drops}: not all of these epochs come in a run of {longest:g}", stacklevel=3
            )
    if config.warmup:
        found[0] = warmed_up(found[0], config.warmup)
    return found


def of_the_run(config: RunConfig, epochs: float, floor: float = 0.0) -> Schedule:
    """Return the schedule that the options ask for (``--schedule``), for a stage of this many epochs.

    Args:
        config: the options.
        epochs: length of the stage.
        floor: factor of the smallest rate (``--lr-floor``).

    Raises:
        UserError: if ``--lr-drops``, which only ``step`` uses, is not a list of epochs.
    """
    floor = min(floor, 1.0)
    if config.schedule == "cosine":
        return lambda done: above(floor, cosine(math.floor(done), epochs))
    if config.schedule == "restarts":
        return lambda done: above(floor, cosine(math.floor(done) % config.lr_period, config.lr_period))
    if config.schedule == "cyclic":
        return cyclic
    if config.schedule == "constant":
        return lambda done: 1.0
    drops = drops_of(config, epochs)
    return lambda done: config.lr_drop_factor ** sum(done >= drop for drop in drops)


def drops_of(config: RunConfig, epochs: float) -> list[float]:
    """Return the epochs at which ``--schedule step`` lowers the rate in a stage of this many."""
    try:
        at = [0.8 * epochs, 0.9 * epochs] if config.lr_drops is None else [*map(float, config.lr_drops.split(","))]
    except ValueError:
        at = []
    if not at or not all(0 < drop < math.inf for drop in at):
        raise UserError(f"--lr-drops {config.lr_drops}: must be epochs above 0 separated by commas, e.g. 160,180")
    return at


def warmed_up(factor: Schedule, epochs: float) -> Schedule:
    """Return a schedule that rises linearly from 0 to the given one over the first epochs; both count from 0."""
    return lambda done: min(done / epochs, 1.0) * factor(done)


def above(floor: float, factor: float) -> float:
    """Return floor + (1 - floor) factor."""
    return floor + (1 - floor) * factor


def cosine(done: float, epochs: float) -> float:
    """Return (1 + cos(pi done / epochs)) / 2."""
    return (1 + math.cos(math.pi * done / epochs)) / 2


def cyclic(done: float) -> float:
    """Return the factor of half-cosines of 1, 2, 4, ... epochs, each from 0.9 of the peak before it to 0 (FSR)."""
    cycle = math.floor(math.log2(done + 1))
    start, length = 2**cycle - 1, 2**cycle
    return 0.9**cycle * cosine(done - start, length)
