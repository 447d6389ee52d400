"""From a signal to the probability that a label is wrong, and to shares of wrong labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

from reweight_audit.records import Share
from reweight_audit.signals import Known

FEWEST = 5
"""Known wrong labels, and known right ones, from which on a signal is calibrated by them."""

PENALTY = 10.0
"""Inverse strength of the penalty on the slope. With less of it, intervals from ten known examples were too narrow."""

ROUNDS = 100
"""Draws of the bootstrap."""

SOME = 5000
"""Examples of which the shares are estimated, about."""

STEPS = 60
"""Of expectation and maximisation."""

LIKE_ALL = 20
"""Examples of all classes as which the share of wrong labels of one class begins."""

FAR = 2.0
"""Where a signal is cut off, if from -1 to 1 it holds the middle nine of ten examples."""

TINY = 1e-12
"""In place of 0, by which nothing can be divided."""

LEVEL = 0.95
"""How often an interval holds what it is of."""


def from_known(
    values: np.ndarray, labels: np.ndarray, users: np.ndarray, known: Known
) -> tuple[np.ndarray, np.ndarray]:
    """Calibrate a signal by examples whose labels are known to be wrong or right (Platt scaling).

    Wrong ones are as frequent among the user's examples of a given class as makes their signals likeliest (Saerens et
    al., Neural Computation 2002), where a class of few examples is taken to be like all others.

    Args:
        values: the signal of all examples, (N,); the higher, the more suspicious.
        labels: given labels, int64 (N,).
        users: which of them are the user's, bool (N,): half of those that were planted are wrong.
        known: signals of examples known to be wrong, and to be right.

    Returns:
        The probabilities of all, (N,), 0 if the signal points the wrong way; the same from other draws of the known
        examples, at most (ROUNDS, N).
    """
    low, high = np.percentile(values, [5, 95])

    def scaled(of_some: np.ndarray) -> np.ndarray:
        # a few that are far out do not decide on the slope
        found: np.ndarray = np.clip((2 * of_some - low - high) / max(high - low, TINY), -FAR, FAR)
        return found

    of_all, of_wrong, of_right = scaled(values), scaled(known.wrong), scaled(known.right)
    # shares are means, for which some thousands do
    positions = np.flatnonzero(users)
    some = positions[:: max(1, len(positions) // SOME)]
    rng = np.random.RandomState(0)
    draws = [
        _platt(of_all, labels, some, rng.choice(of_wrong, len(of_wrong)), rng.choice(of_right, len(of_right)))
        for _ in range(ROUNDS)
    ]
    found = _platt(of_all, labels, some, of_wrong, of_right)
    # of a draw in which the signal points the wrong way nothing follows
    told = [draw for draw in draws if draw is not None]
    return np.zeros(len(values)) if found is None else found, np.array(told, dtype=np.float32).reshape(-1, len(values))


def _platt(
    values: np.ndarray, labels: np.ndarray, some: np.ndarray, wrong: np.ndarray, right: np.ndarray
) -> np.ndarray | None:
    """Return the probabilities of all examples, from the signals of known ones; None if the signal is inverted.

    Args:
        values: the signal of all examples, (N,).
        labels: their given labels, (N,).
        some: positions of those that tell how many are wrong.
        wrong: signals of examples known to be wrong, (a,).
        right: signals of examples known to be right, (b,).
    """
    known = np.concatenate([wrong, right])[:, None]
    truth = np.repeat([1, 0], [len(wrong), len(right)])
    model = LogisticRegression(C=PENALTY, class_weight="balanced").fit(known, truth)
    slope, middle = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        return None
    odds = slope * values + middle
    of_some, of_class = odds[some], labels[some]
    counts = np.bincount(of_class, minlength=labels.max() + 1)
    share = np.full(len(counts), 0.5)
    for _ in range(STEPS):
        likely = expit(of_some + logit(share[of_class]))
        sums = np.bincount(of_class, likely, len(counts))
        share = np.clip((sums + LIKE_ALL * likely.mean()) / (counts + LIKE_ALL), 1e-3, 1 - 1e-3)
    return expit(odds + logit(share[labels]))


def from_two_groups(values: np.ndarray) -> np.ndarray:
    """Return the probability of the upper of two groups that the values are taken for (a mixture of two normals), (N,).

    As DivideMix does with losses (Li et al., ICLR 2020, section 3.1); it never falls where the signal rises.
    """
    low, high = np.percentile(values, [1, 99])
    if low == high:
        return np.zeros(len(values))
    clipped = ((np.clip(values, low, high) - low) / (high - low))[:, None]
    mixture = GaussianMixture(2, reg_covar=1e-4, random_state=0).fit(clipped)
    of_upper = mixture.predict_proba(clipped)[:, mixture.means_.argmax()]
    order = np.argsort(clipped[:, 0], kind="stable")
    # the wider group may win below the narrower one, too
    rising = np.maximum.accumulate(np.where(clipped[order, 0] >= mixture.means_.min(), of_upper[order], 0.0))
    found = np.empty(len(values))
    found[order] = rising
    return found


def shares(probability: np.ndarray, draws: np.ndarray | None, groups: Sequence[np.ndarray]) -> list[Share]:
    """Return the mean probability in groups of examples, with an interval.

    The interval is that of the draws, and of independent labels with these probabilities. Without draws nothing is
    known: it is everything.

    Args:
        probability: that each label is wrong, (N,).
        draws: the same from draws of what it was calibrated by, (R, N), or None.
        groups: which examples are in each group, bool (N,).
    """
    return [_share(probability[group], None if draws is None else draws[:, group]) for group in groups]


def _share(probability: np.ndarray, draws: np.ndarray | None) -> Share:
    value, size = float(probability.mean()) if len(probability) else 0.0, len(probability)
    if not size or draws is None or not len(draws):
        return Share(value, 0.0, 1.0)
    tail = (1 - LEVEL) / 2
    of_labels = norm.ppf(1 - tail) * np.sqrt((probability * (1 - probability)).sum()) / size
    low, high = np.quantile(draws.mean(1), [tail, 1 - tail])
    return Share(value, float(max(0.0, min(low, value) - of_labels)), float(min(1.0, max(high, value) + of_labels)))
