"""Parts of a set for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reweight_core.data.seeds import Stream, random_state
from reweight_core.errors import UserError


def in_fold(labels: np.ndarray, fold: tuple[int, int], seed: int) -> np.ndarray:
    """Return which examples are in one of N parts, bool (k,).

    Each class is dealt out evenly, and going on where the last one ended: parts differ in size by one example at most,
    and so does each class in them.

    Args:
        labels: int64 (k,).
        fold: (K, N), the K-th of N parts, from 1 on.
        seed: of the run; the N parts of one seed are disjoint and make up the whole.

    Raises:
        UserError: if there are fewer examples than parts.
    """
    number, parts = fold
    if parts > len(labels):
        raise UserError(f"--val-fold {number}/{parts}: there are only {len(labels)} examples to make {parts} parts of")
    shuffled = random_state(seed, Stream.FOLDS).permutation(len(labels))
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[dealt[number - 1 :: parts]] = True
    return chosen


def refuse_lost_class(labels: np.ndarray, chosen: np.ndarray, fold: tuple[int, int], classes: Sequence[str]) -> None:
    """Refuse a part that takes all examples of a class.

    Args:
        labels: true labels, int64 (k,).
        chosen: which examples are in the part, bool (k,).
        fold: (K, N), the K-th of N parts.
        classes: class names, by index.

    Raises:
        UserError: if a class would have no training example.
    """
    lost = np.setdiff1d(labels, labels[~chosen])
    if len(lost):
        number, parts = fold
        raise UserError(
            f"--val-fold {number}/{parts}: leaves no example of class '{classes[lost[0]]}' for training; "
            "take more and smaller parts, or leave the class out"
        )
