"""When ``--patience`` ends a stage early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reweight_core.engine.stage import Stage
from reweight_core.runs.checkpoint import best_epoch


def patient_stage(stages: Sequence[Stage]) -> int:
    """Return which stage may end early: the last that the method trains in, so not a plain one, if there is such.

    Plain stages are what plugins add to a training, to estimate something before it or to fine-tune after it, and
    what comes before the last stage is what that rests on: they are always whole.
    """
    return max((number for number, stage in enumerate(stages) if not stage.plain), default=len(stages) - 1)


def is_in_vain(epochs: Sequence[Mapping[str, Any]], by: str, patience: int) -> bool:
    """Whether none of the last epochs of a stage was better than one before them.

    Args:
        epochs: metrics of the stage's finished epochs.
        by: the figure that should become larger.
        patience: the number of last epochs, or 0 to wait for ever.
    """
    best = best_epoch(epochs, by)
    return patience > 0 and best is not None and epochs[-1]["epoch"] - best["epoch"] >= patience
