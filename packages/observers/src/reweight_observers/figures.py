"""What is logged of a run: its name, the numbers of an epoch, and the weights of the examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def name_of(folder: Path) -> str:
    """Return what a run is called: its folder's name, for a run of a sweep ``SWEEP/CELL/seed-N``."""
    parts = folder.resolve().parts
    return "/".join(parts[-3:]) if re.fullmatch(r"seed-\d+", parts[-1]) else parts[-1]


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of an epoch that are numbers, but for its own."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "epoch"
    }


def weights_of(samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the examples weighed at their last visit, by the name of the histogram.

    ``weights`` is of all that a plugin gave weights to; where true labels are known, ``weights_clean`` and
    ``weights_corrupted`` are of those with right and with wrong labels. There are none without a finite weight.

    Args:
        samples: as `observe_epoch` gets them, (N,) each.
    """
    weights = samples["last_weight"]
    weighed = (samples["visits"] > 0) & np.isfinite(weights)
    if "trusted" in samples:
        weighed &= ~samples["trusted"]
    known, right = samples["true"] >= 0, samples["true"] == samples["observed"]
    groups = {
        "weights": weighed,
        "weights_clean": weighed & known & right,
        "weights_corrupted": weighed & known & ~right,
    }
    return {name: weights[group] for name, group in groups.items() if group.any()}
