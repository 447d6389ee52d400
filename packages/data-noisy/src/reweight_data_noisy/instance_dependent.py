"""Label noise that depends on the example and not on its class alone, so that it has no transition matrix."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reweight_core import UserError
from reweight_data_noisy.noise import draw, parse_rate, read_rows, refuse_other_than_distributions

if TYPE_CHECKING:
    from reweight_core import Corruption

SPREAD = 0.1
"""Standard deviation of the flip rates of `instance`."""

TAUGHT = 10
"""Examples of each class from which the weak model of `model` learns."""

PENALTY = 100
"""Its L2 penalty, strong enough that the few examples determine it well."""

MODEL_SIDE, INSTANCE_SIDE = 8, 32
"""Pixels a side to which larger images are reduced, for `model` and for `instance`."""

AT_ONCE = 512
"""Images that are turned into numbers at once."""

ROUNDING = 1e-3
"""How far the sum of a row of annotators' shares may be from 1."""


def instance(
    labels: np.ndarray, num_classes: int, rng: np.random.RandomState, images: np.ndarray, *, rate: float
) -> np.ndarray:
    """Draw each label from its example's own transition row (`transition_rows`); int64 (N,)."""
    rows = transition_rows(labels, num_classes, rng, images, rate)
    return draw(np.arange(len(labels)), rows, rng)


def transition_rows(
    labels: np.ndarray, num_classes: int, rng: np.random.RandomState, images: np.ndarray, rate: float
) -> np.ndarray:
    """Return P(observed j | x_i, y_i), (N, C).

    After Xia et al., "Part-dependent Label Noise" (NeurIPS 2020), Algorithm 2.

    Example i is mislabelled with its own probability q_i, normal around the rate with deviation 0.1 and cut to [0, 1].
    To which class, a projection of its pixels says, another for each class: softmax(x_i W_y) without class y, W_y
    (features, C) of standard normal entries. As in the official code, x are the pixels as they are stored, 0 to 255.
    That is so large that for nearly every example one other class has all the probability.

    Args:
        labels: true labels y, int64 (N,).
        num_classes: C.
        rng: source of the draws.
        images: x, (N, channels, height, width).
        rate: mean of q before it is cut.
    """
    q = rng.normal(rate, SPREAD, len(labels))
    while (outside := (q < 0) | (q > 1)).any():
        q[outside] = rng.normal(rate, SPREAD, outside.sum())
    rows = np.empty((len(labels), num_classes))
    for c in range(num_classes):
        W = rng.standard_normal((inputs(images[:1], INSTANCE_SIDE).shape[1], num_classes))
        for ids in chunks(np.flatnonzero(labels == c)):
            A = inputs(images[ids], INSTANCE_SIDE) @ W
            A[:, c] = -np.inf
            to_other = np.exp(A - A.max(1, keepdims=True))
            rows[ids] = q[ids, None] * to_other / to_other.sum(1, keepdims=True)
            rows[ids, c] = 1 - q[ids]
    return rows


def model(
    labels: np.ndarray, num_classes: int, rng: np.random.RandomState, images: np.ndarray, *, rate: float
) -> np.ndarray:
    """Give int(pN) examples the class that a weak model takes them for; int64 (N,).

    The model is a logistic regression on standardised features, or on thumbnails of `MODEL_SIDE` pixels a side, fitted
    to `TAUGHT` right examples of each class. The examples are those with the smallest margin, the probability of the
    true class less that of the most probable other one, which becomes the label: first the model's mistakes, surest
    first, then what it is least sure of; those that it learned from come last. Close to Chen et al., "Beyond
    Class-Conditional Assumption" (AAAI 2021), where a deep network that was trained on all examples says what is
    mistaken for what.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    taught = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:TAUGHT] for c in range(num_classes)])
    # solved to the last digits: what other machines round differently must not change a label
    weak = make_pipeline(StandardScaler(), LogisticRegression(C=1 / PENALTY, solver="newton-cg", tol=1e-10))
    weak.fit(inputs(images[taught], MODEL_SIDE), labels[taught])
    p = np.zeros((len(labels), num_classes))
    for ids in chunks(np.arange(len(labels))):
        p[ids[:, None], weak.classes_] = weak.predict_proba(inputs(images[ids], MODEL_SIDE))
    everyone = np.arange(len(labels))
    of_label = p[everyone, labels]
    p[everyone, labels] = -1
    margin = of_label - p.max(1)
    margin[taught] = np.inf
    chosen = np.argsort(margin, kind="stable")[: int(rate * len(labels))]
    noisy = labels.copy()
    noisy[chosen] = p[chosen].argmax(1)
    return noisy


def crowd(
    labels: np.ndarray, num_classes: int, rng: np.random.RandomState, mask: np.ndarray, *, path: Path
) -> np.ndarray:
    """Draw each label from the shares of annotators who gave its example each class; int64 (N,).

    Args:
        labels: true labels, int64 (N,); only their number matters.
        num_classes: C.
        rng: source of the draws.
        mask: which of the M training examples of the dataset these are, bool (M,).
        path: a text file of M lines of C numbers.

    Raises:
        UserError: if it cannot be read, or a row is no distribution over C classes.
    """
    where = f"--noise crowd:{path}"
    rows = read_rows(path, where, "example of the training set")
    if rows.shape != (len(mask), num_classes):
        raise UserError(
            f"{where}: has shape {rows.shape}, but the training set has {len(mask)} examples (before --meta-size and "
            f"other sets are taken out of it) and {num_classes} classes"
        )
    refuse_other_than_distributions(rows, where, ROUNDING)
    rows = rows[mask]
    return draw(np.arange(len(labels)), rows / rows.sum(1, keepdims=True), rng)


def chunks(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Cut positions into parts whose images may be in memory as numbers at once."""
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def inputs(images: np.ndarray, side: int) -> np.ndarray:
    """Return pixels or features as float64 (n, features), larger images averaged down to so many pixels a side."""
    for axis in (2, 3):
        size = images.shape[axis]
        if size > side:
            starts = np.arange(side) * size // side
            pixels = np.diff(starts, append=size).reshape((-1, 1) if axis == 2 else -1)
            images = np.add.reduceat(images, starts, axis, dtype=np.float64) / pixels
    return images.reshape(len(images), -1).astype(np.float64)


def parse(kind: str, argument: str) -> Corruption:
    """Return the corruption that ``--noise KIND:ARGUMENT`` asks for.

    Raises:
        UserError: if the argument is wrong. What depends on the data is checked when labels are corrupted.
    """
    if kind == "crowd":
        return partial(crowd, path=Path(argument))
    rate = parse_rate(kind, argument)
    if kind == "model":
        return partial(model, rate=rate)
    if rate in (0, 1):
        raise UserError(
            f"--noise instance:{argument}: flip rates spread around the rate, which must be above 0 and below 1"
        )
    return partial(instance, rate=rate)
