"""Label noise that depends on the class alone. T is the transition matrix: T[i, j] = P(observed j | true i)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reweight_core import UserError

if TYPE_CHECKING:
    from reweight_core import Corruption

ROUNDING = 1e-6
"""How far the sum of a row of a given matrix may be from 1."""

ASYMMETRIC = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
"""CIFAR-10: truck to automobile, bird to airplane, cat and dog to each other, deer to horse."""

SUPERCLASSES = np.array(
    [
        *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
        *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
        *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
        *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
    ]
)
"""The superclass, 0..19, of each of CIFAR-100's classes."""


def uniform(labels: np.ndarray, num_classes: int, rng: np.random.RandomState, *, rate: float) -> np.ndarray:
    """Redraw each label with probability p uniformly over all C classes: T = (1-p) I + (p/C) 11'; int64 (N,).

    The true class may be drawn again, so a share p(C-1)/C of the labels is wrong. From MW-Net (Shu et al.,
    NeurIPS 2019); GDW and FSR use the same.
    """
    redrawn = rng.random_sample(len(labels)) < rate
    return np.where(redrawn, rng.randint(num_classes, size=len(labels), dtype=np.int64), labels)


def uniform_exclusive(labels: np.ndarray, num_classes: int, rng: np.random.RandomState, *, rate: float) -> np.ndarray:
    """Turn each label with probability p into one of the C-1 other classes; int64 (N,).

    T = (1-p) I + p/(C-1) (11' - I): a share p of the labels is wrong.
    """
    redrawn = rng.random_sample(len(labels)) < rate
    other = (labels + 1 + rng.randint(num_classes - 1, size=len(labels), dtype=np.int64)) % num_classes
    return np.where(redrawn, other, labels)


def l2rw_uniform(labels: np.ndarray, num_classes: int, rng: np.random.RandomState, *, rate: float) -> np.ndarray:
    """Redraw exactly int(pN) labels uniformly over all classes but the last; int64 (N,).

    As in the official code of L2RW (Ren et al., ICML 2018). The true class may be drawn again: with balanced classes
    a share p(C-1)/C of the labels is wrong.
    """
    noisy = labels.copy()
    chosen = rng.permutation(len(labels))[: int(len(labels) * rate)]
    noisy[chosen] = (rng.random_sample(len(chosen)) * (num_classes - 1)).astype(np.int64)
    return noisy


def background(
    labels: np.ndarray, num_classes: int, rng: np.random.RandomState, *, rate: float, target: int | None = None
) -> np.ndarray:
    """Turn exactly int(pN) labels into one class, the background (L2RW, "background flip"); int64 (N,).

    Examples of that class may be among the chosen: with balanced classes a share p(C-1)/C of the labels is wrong.

    Args:
        labels: true labels, int64 (N,).
        num_classes: C.
        rng: source of the draws.
        rate: p.
        target: the background class; None draws any but the last, as the official code does.

    Raises:
        UserError: if there is no such class.
    """
    if target is not None and target >= num_classes:
        raise UserError(f"--noise background: class {target} is outside 0..{num_classes - 1}")
    drawn = int(rng.random_sample() * (num_classes - 1))
    noisy = labels.copy()
    noisy[rng.permutation(len(labels))[: int(len(labels) * rate)]] = drawn if target is None else target
    return noisy


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


def flip2_matrix(num_classes: int, rate: float) -> np.ndarray:
    """Return T with p/2 at two other classes of each class, from seed 1 for every run (MW-Net); (C, C).

    A share p of the labels is wrong.
    """
    rng = np.random.RandomState(1)
    everything = np.arange(num_classes)
    T = (1 - rate) * np.eye(num_classes)
    for c in everything:
        T[c, rng.choice(everything[everything != c], 2, replace=False)] = rate / 2
    return T


def asymmetric_matrix(num_classes: int, rate: float) -> np.ndarray:
    """Return T with p at the similar class of five of CIFAR-10's classes, `ASYMMETRIC` (FSR); (10, 10).

    A share p/2 of the labels is wrong.
    """
    T = np.eye(num_classes)
    for c, similar in ASYMMETRIC.items():
        T[c, c], T[c, similar] = 1 - rate, rate
    return T


def hierarchical_matrix(num_classes: int, rate: float) -> np.ndarray:
    """Return T with p/4 at the four other classes of each class's superclass (MW-Net, CIFAR-100); (100, 100).

    A share p of the labels is wrong.
    """
    related = SUPERCLASSES[:, None] == SUPERCLASSES
    return np.where(np.eye(num_classes) == 1, 1 - rate, related * rate / 4)


def read_matrix(path: Path, num_classes: int) -> np.ndarray:
    """Read a transition matrix (C, C) from a text file: a line for each class, numbers separated by commas or blanks.

    Raises:
        UserError: if it cannot be read, or if a row is no distribution over C classes.
    """
    where = f"--noise matrix:{path}"
    T = read_rows(path, where, "class")
    if T.shape != (num_classes, num_classes):
        raise UserError(f"{where}: has shape {T.shape}, but the data have {num_classes} classes")
    refuse_other_than_distributions(T, where, ROUNDING)
    return T


def read_rows(path: Path, where: str, each: str) -> np.ndarray:
    """Read a table of numbers, separated by commas or blanks, from a text file.

    Args:
        path: the file.
        where: what names it, for messages.
        each: what there must be a line for.

    Raises:
        UserError: if it cannot be read, or its lines have different lengths.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").replace(",", " ")
        rows = [line.split() for line in text.splitlines() if line.strip()]
        for number, row in enumerate(rows, start=1):
            if len(row) != len(rows[0]):
                raise ValueError(f"row {number} has another length than row 1 ({len(row)}, not {len(rows[0])})")
        return np.array(rows, dtype=np.float64)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: {error}; it must be text, a line of numbers for each {each}") from None


def refuse_other_than_distributions(rows: np.ndarray, where: str, rounding: float) -> None:
    """Refuse rows (n, C) with a negative number, or with a sum that is further from 1 than the rounding."""
    sums = rows.sum(1)
    wrong = np.flatnonzero(~((rows >= 0).all(1) & (np.abs(sums - 1) <= rounding)))
    if len(wrong):
        raise UserError(
            f"{where}: row {wrong[0] + 1} must be a distribution (no negative number, sum 1; it is {sums[wrong[0]]:g})"
        )


def draw(labels: np.ndarray, T: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw each observed label from the row of its true one; int64 (N,)."""
    upper = T.cumsum(1)
    # rounding must not leave a draw above the last entry
    upper[:, -1] = np.inf
    chance = rng.random_sample(len(labels))
    return (chance[:, None] >= upper[labels]).sum(1).astype(np.int64)


_BY_RATE: dict[str, Callable[..., np.ndarray]] = {
    "uniform": uniform,
    "uniform-exclusive": uniform_exclusive,
    "l2rw-uniform": l2rw_uniform,
    "flip": flip,
}
# kind -> (matrix for C classes and a rate, which numbers of classes it is defined for, how to say so)
_BY_MATRIX: dict[str, tuple[Callable[[int, float], np.ndarray], Callable[[int], bool], str]] = {
    "flip2": (flip2_matrix, lambda classes: classes > 2, "at least 3 classes"),
    "asymmetric": (asymmetric_matrix, lambda classes: classes == 10, "the 10 classes of CIFAR-10"),
    "hierarchical": (hierarchical_matrix, lambda classes: classes == 100, "the 100 classes of CIFAR-100"),
}


def parse(kind: str, argument: str) -> Corruption:
    """Return the corruption that ``--noise KIND:ARGUMENT`` asks for.

    Raises:
        UserError: if the argument is wrong. What depends on the data is checked when labels are corrupted.
    """
    if kind == "matrix":
        path = Path(argument)
        return lambda labels, num_classes, rng: draw(labels, read_matrix(path, num_classes), rng)
    if kind == "background":
        rate, _, target = argument.partition(":")
        return partial(background, rate=parse_rate(kind, rate), target=_target(argument, target))
    rate_of_all = parse_rate(kind, argument)
    if kind in _BY_RATE:
        return partial(_BY_RATE[kind], rate=rate_of_all)
    matrix, is_defined, needed = _BY_MATRIX[kind]

    def corrupt(labels: np.ndarray, num_classes: int, rng: np.random.RandomState) -> np.ndarray:
        if not is_defined(num_classes):
            raise UserError(f"--noise {kind}: is defined for {needed}, but the data have {num_classes} classes")
        return draw(labels, matrix(num_classes, rate_of_all), rng)

    return corrupt


def _target(argument: str, target: str) -> int | None:
    if target and not target.isdecimal():
        raise UserError(f"--noise background:{argument}: must be RATE or RATE:CLASS, the class as its index")
    return int(target) if target else None


def parse_rate(kind: str, argument: str) -> float:
    """Return a share of the labels from 0 to 1 (errors as `parse`)."""
    try:
        rate = float(argument)
    except ValueError:
        rate = float("nan")
    if not 0 <= rate <= 1:  # NaN fails this too
        raise UserError(f"--noise {kind}:{argument}: the rate must be between 0 and 1")
    return rate
