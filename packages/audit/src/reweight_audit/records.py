"""What an audit found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    import pandas


@attrs.frozen(eq=False)
class Signal:
    """Something that a run knows of each training example and that tells wrong labels from right ones.

    Attributes:
        name: what it is called.
        meaning: one line that says what it is, and which way it points.
        values: of every example, float64 (N,); the higher, the more suspicious.
        auroc: how well it tells planted wrong labels from planted right ones, or None without planted ones.
        known: figures by the true labels where they are known: ``auroc``, ``precision_1`` and ``precision_5`` (of the
            worst 1 and 5 %), ``precision_wrong`` (of as many as are wrong); else empty.
    """

    name: str
    meaning: str
    values: np.ndarray
    auroc: float | None = None
    known: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Share:
    """A share, with an interval that holds it in 95 of 100 cases."""

    value: float
    low: float
    high: float


@attrs.frozen(eq=False)
class Audit:
    """What an audit found of N training examples of C classes.

    Attributes:
        run: the folder of the run.
        fingerprint: of its data.
        classes: names of the classes, (C,).
        ids: positions in the dataset's training set, int64 (N,).
        names: of the examples, file names for images, (N,).
        given: labels that the run was trained with, int64 (N,).
        suggested: what they should be, int64 (N,); the given one where nothing else is likelier.
        probability: that the given label is wrong, float64 (N,).
        calibrated: what the probabilities were calibrated by, in words, or None if they were not.
        signals: what the run knows of the examples, the one that ranks them first.
        matrix: estimated number of examples of each suggested (row) and given (column) class, float64 (C, C).
        wrong: share of wrong labels among those of each given class, (C,), and of all.
        wrong_of_all: the same of all examples.
        planted: examples that are not the user's training examples, bool (N,): planted ones, which measure the signals,
            and trusted ones that were trained on too.
        true: true labels, int64 (N,); -1 where they are not known.
        weights: mean weight of each example in training, float64 (N,).
    """

    run: str
    fingerprint: str
    classes: Sequence[str]
    ids: np.ndarray
    names: Sequence[str]
    given: np.ndarray
    suggested: np.ndarray
    probability: np.ndarray
    calibrated: str | None
    signals: Sequence[Signal]
    matrix: np.ndarray
    wrong: Sequence[Share]
    wrong_of_all: Share
    planted: np.ndarray
    true: np.ndarray
    weights: np.ndarray

    def to_frame(self) -> pandas.DataFrame:
        """Return a data frame with the columns of cleanlab (`reweight_audit.exports.to_frame`)."""
        from reweight_audit.exports import to_frame

        return to_frame(self)

    def order(self) -> np.ndarray:
        """Return the positions of the examples, the most suspicious first, without the planted ones."""
        ranked = np.lexsort((-self.signals[0].values, -self.probability))
        return ranked[~self.planted[ranked]]
