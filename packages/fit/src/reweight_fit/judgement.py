"""How good a way to train is, by the examples that it was judged on, and what of several is best."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import attrs
import numpy as np

Name = TypeVar("Name", bound=Hashable)

TIE = 0.25
"""What is better by less than so many standard deviations of its lead is no better: the simpler one is taken."""

OBSERVED_TIE = 0.5
"""The same by observed labels, which what repeats wrong ones predicts better too."""

TEMPERATURES = np.geomspace(0.2, 50, 25)
"""By which logits are divided, to find the one that suits them."""


@attrs.frozen(eq=False)
class Judgement:
    """How well a way to train predicts the examples to be judged on.

    Attributes:
        right: share of its networks that got each example right, (k,); NaN where it was not judged on it.
        scores: mean of that and of the probability of the label, (k,), NaN as above. On few examples the share of right
            predictions is coarse; for calibrated probabilities, both are estimates of the accuracy.
        weights: how much each example counts, (k,).
    """

    right: np.ndarray
    scores: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, weights: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Judgement:
        """Judge what several networks say of examples that they never saw.

        Args:
            labels: of all examples to be judged on, int64 (k,).
            weights: how much each of them counts, (k,).
            parts: of each network the positions of its examples, int64 (n,), and their logits, (n, C); NaN if there is
                no network, and nothing is right.
        """
        positions = np.concatenate([of_part for of_part, _ in parts])
        logits = np.concatenate([of_part for _, of_part in parts]).astype(np.float64)
        is_known = np.isfinite(logits).all(axis=1)
        right = is_known & (logits.argmax(1) == labels[positions])
        probabilities = np.zeros(len(positions))
        if is_known.any():
            of_known = labels[positions[is_known]]
            probabilities[is_known] = calibrated(logits[is_known], of_known, weights[positions[is_known]])
        visits = np.bincount(positions, minlength=len(labels))
        with np.errstate(invalid="ignore"):
            share = np.bincount(positions, right, len(labels)) / visits
            mean = np.bincount(positions, probabilities, len(labels)) / visits
        return cls(share, (share + mean) / 2, weights)

    @property
    def judged(self) -> np.ndarray:
        """Which examples it was judged on, bool (k,)."""
        return ~np.isnan(self.right)

    def accuracy(self) -> float:
        """Return the share of right predictions."""
        return float(np.average(self.right[self.judged], weights=self.weights[self.judged]))

    def standard_error(self) -> float:
        """Return the standard error of the accuracy, with one success and one failure added (Agresti and Coull)."""
        n = _effective(self.weights[self.judged])
        p = (self.accuracy() * n + 1) / (n + 2)
        return float(np.sqrt(p * (1 - p) / (n + 2)))

    def ahead_of(self, other: Judgement) -> Lead:
        """Return by how much its score is better than another's on what both were judged on, with the standard error.

        The two were judged on the same examples, which makes their difference surer than either figure.
        """
        both = self.judged & other.judged
        difference, weights = self.scores[both] - other.scores[both], self.weights[both]
        n = _effective(weights)
        mean = np.average(difference, weights=weights)
        variance = np.average((difference - mean) ** 2, weights=weights)
        # one example for and one against, so that a few that agree are not taken for certain
        return Lead(float(mean), float(np.sqrt((n * variance + 2) / ((n + 2) * (n + 1)))))

    def estimate(self, reference: Judgement) -> float:
        """Return the score to be expected on all examples, from those that it was judged on.

        How hard these were is known from a reference that was judged on them and on others.
        """
        known = reference.judged
        whole = float(np.average(reference.scores[known], weights=reference.weights[known]))
        return whole + self.ahead_of(reference).mean


@attrs.frozen
class Lead:
    """How far a way to train is ahead of plain training, as a share of the examples: a normal distribution."""

    mean: float
    deviation: float

    def after(self, measured: Lead) -> Lead:
        """Return what is known after a measurement, where this was known before it (Bayes' rule)."""
        before, of_it = self.deviation**-2, measured.deviation**-2
        mean = (before * self.mean + of_it * measured.mean) / (before + of_it)
        return Lead(mean, (before + of_it) ** -0.5)


def best_of(leads: Mapping[Name, Lead], tie: float) -> Name:
    """Return what is best; of those that are not clearly worse, the simplest.

    Args:
        leads: what is known of each, the simplest first.
        tie: what is clear, in standard deviations of the best lead.
    """
    best = max(leads.values(), key=lambda lead: lead.mean)
    return next(name for name, lead in leads.items() if lead.mean >= best.mean - tie * best.deviation)


def calibrated(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the probabilities of labels, (n,), at the temperature that makes them likeliest (Guo et al., ICML 2017).

    Args:
        logits: float64 (n, C).
        labels: int64 (n,).
        weights: how much each example counts, (n,).
    """
    found = [_log_probabilities(logits / temperature, labels) for temperature in TEMPERATURES]
    return np.exp(max(found, key=lambda of_labels: float(np.average(of_labels, weights=weights))))


def _log_probabilities(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the logarithms of the softmax probabilities of labels, (n,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    of_labels: np.ndarray = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
    return of_labels


def _effective(weights: np.ndarray) -> float:
    """Return the effective number of examples with such weights (Kish)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
