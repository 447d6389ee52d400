"""How good a way to train is, by the examples that it was judged on, and what of several is best."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import attrs
import numpy as np

Name = TypeVar("Name", bound=Hashable)

TIE = 0.5
"""What is better by less than so many standard errors of the difference is no better: the simpler one is taken."""


@attrs.frozen(eq=False)
class Judgement:
    """Which of the examples to be judged on a way to train got right.

    Attributes:
        right: share of its networks that got each example right, (k,); NaN where it was not judged on it.
        weights: how much each example counts, (k,).
    """

    right: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Judgement:
        """Gather what several networks got right.

        Args:
            weights: how much each example to be judged on counts, (k,).
            parts: positions of some examples, and whether a network that never saw them got them right.
        """
        hits, visits = np.zeros(len(weights)), np.zeros(len(weights))
        for positions, right in parts:
            np.add.at(hits, positions, right)
            np.add.at(visits, positions, 1)
        with np.errstate(invalid="ignore"):
            return cls(hits / visits, weights)

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

    def ahead_of(self, other: Judgement) -> tuple[float, float]:
        """Return by how much it is better than another on what both were judged on, and the standard error.

        The two were judged on the same examples, which makes their difference surer than either figure.
        """
        both = self.judged & other.judged
        difference, weights = self.right[both] - other.right[both], self.weights[both]
        n = _effective(weights)
        mean = np.average(difference, weights=weights)
        variance = np.average((difference - mean) ** 2, weights=weights)
        # one example for and one against, so that a few that agree are not taken for certain
        return float(mean), float(np.sqrt((n * variance + 2) / ((n + 2) * (n + 1))))

    def estimate(self, reference: Judgement) -> float:
        """Return the accuracy to be expected on all examples, from those that it was judged on.

        How hard these were is known from a reference that was judged on them and on others.
        """
        return reference.accuracy() + self.ahead_of(reference)[0]


def best_of(judged: Mapping[Name, Judgement], reference: Name) -> Name:
    """Return what is best; of those that are not clearly worse (`TIE`), the simplest.

    Args:
        judged: judgements, the simplest way first.
        reference: one that was judged on all that any was judged on.
    """
    # of equals, max returns the first
    best = max(judged, key=lambda name: judged[name].estimate(judged[reference]))
    for name, judgement in judged.items():
        ahead, error = judged[best].ahead_of(judgement)
        if ahead <= TIE * error:
            return name
    return best


def _effective(weights: np.ndarray) -> float:
    """Return the effective number of examples with such weights (Kish)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
