"""Label noise of the re-weighting papers: every label is corrupted independently, given its class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from reweight_core import UserError

Corruption = Callable[[np.ndarray, int, np.random.RandomState], np.ndarray]


def parse_uniform(argument: str) -> Corruption:
    """Return `uniform` at the rate written in the argument, or raise `UserError`."""
    return partial(uniform, rate=_rate("uniform", argument))


def parse_flip(argument: str) -> Corruption:
    """Return `flip` at the rate written in the argument, or raise `UserError`."""
    return partial(flip, rate=_rate("flip", argument))


def uniform(labels: np.ndarray, num_classes: int, rng: np.random.RandomState, *, rate: float) -> np.ndarray:
    """Redraw each label with probability p uniformly over all C classes: T = (1-p) I + (p/C) 11'; int64 (N,).

    The true class may be drawn again, so a share p(C-1)/C of the labels is wrong. From MW-Net (Shu et al.,
    NeurIPS 2019); GDW and FSR use the same.
    """
    redrawn = rng.random_sample(len(labels)) < rate
    return np.where(redrawn, rng.randint(num_classes, size=len(labels), dtype=np.int64), labels)


def flip(labels: np.ndarray, num_classes: int, rng: np.random.RandomState, *, rate: float) -> np.ndarray:
    """Turn each label y with probability p into the one class `flip_targets` gives for y; int64 (N,).

    A share p of the labels is wrong (GDW, Chen et al., NeurIPS 2021).
    """
    flipped = rng.random_sample(len(labels)) < rate
    return np.where(flipped, flip_targets(num_classes)[labels], labels)


def flip_targets(num_classes: int) -> np.ndarray:
    """Return the class that each class turns into, int64 (C,): from seed 1, as in GDW, for every run."""
    rng = np.random.RandomState(1)
    everything = np.arange(num_classes)
    return np.array([rng.choice(everything[everything != c]) for c in everything], dtype=np.int64)


def _rate(kind: str, argument: str) -> float:
    try:
        rate = float(argument)
    except ValueError:
        rate = float("nan")
    if not 0 <= rate <= 1:  # NaN fails this too
        raise UserError(f"--noise {kind}:{argument}: the rate must be between 0 and 1")
    return rate
