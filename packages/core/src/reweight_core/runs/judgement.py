"""How good predictions are: figures of the labels of a set, the predicted classes and their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

BINS = 15
"""Bins of the expected calibration error, as many as in its paper."""

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "ece")
"""Attributes of `Judgement` that are one number."""


@attrs.frozen(eq=False)
class Judgement:
    """What the predictions for a set of examples are worth.

    Attributes:
        confusion: int64 (C, C); entry (i, j) is the number of examples of class i that were predicted as class j.
        ece: expected calibration error, in 0..1: how far the probability of the predicted class is from the share of
            right predictions, on average (Guo et al., ICML 2017, eq. 3, 15 bins of equal width); None where a
            probability is not a number.
    """

    confusion: np.ndarray
    ece: float | None

    @classmethod
    def of(cls, classes: int, labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> Judgement:
        """Judge predictions.

        Args:
            classes: number of classes C.
            labels: int64 (N,).
            predicted: most probable classes, int64 (N,).
            confidence: their probabilities, float64 (N,).
        """
        confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
        # bin m has the probabilities in (m/M, (m+1)/M]
        bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)
        gaps = np.bincount(bins, (labels == predicted) - confidence, BINS)
        ece = float(np.abs(gaps).sum()) / len(labels)
        return cls(confusion, ece if np.isfinite(ece) else None)

    @property
    def support(self) -> np.ndarray:
        """The number of examples of each class, int64 (C,)."""
        return self.confusion.sum(axis=1)

    @property
    def recall(self) -> np.ndarray:
        """The share of each class's examples that were predicted as it, (C,); NaN for a class without examples."""
        return _ratio(self._right, self.support)

    @property
    def precision(self) -> np.ndarray:
        """The share of right ones among the predictions of each class, (C,); NaN for a class that none is of."""
        return _ratio(self._right, self._predictions)

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return int(self._right.sum()) / int(self.confusion.sum())

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have examples."""
        # without the last digits, by which sums of other numbers with the same result differ: epochs are compared by it
        return round(float(np.nanmean(self.recall)), 12)

    @property
    def macro_f1(self) -> float:
        """The mean of F1, 2 precision recall / (precision + recall), of the classes that occur or were predicted."""
        return float(np.nanmean(_ratio(2 * self._right, self.support + self._predictions)))

    def by_class(self, classes: Sequence[str]) -> dict[str, list[Any]]:
        """Return ``class``, ``support``, ``precision`` and ``recall`` of every class as JSON values, None for NaN."""
        return {
            "class": list(classes),
            "support": self.support.tolist(),
            "precision": _known(self.precision),
            "recall": _known(self.recall),
        }

    @property
    def _right(self) -> np.ndarray:
        return self.confusion.diagonal()

    @property
    def _predictions(self) -> np.ndarray:
        return self.confusion.sum(axis=0)


def figures_of(part: str, judged: Judgement | None) -> dict[str, float | None]:
    """Return `FIGURES` of a set.

    Args:
        part: name of the set, which begins the name of each figure.
        judged: how its examples were predicted, or None if there is no such set; all figures are then None.
    """
    return {f"{part}_{name}": None if judged is None else getattr(judged, name) for name in FIGURES}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
