"""The figures of predictions, against scikit-learn and a transcription of the calibration error."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from reweight_core.runs.judgement import Judgement, figures_of

CLASSES = 5
CLASS = st.integers(0, CLASSES - 1)
PREDICTION = st.tuples(CLASS, CLASS, st.floats(1 / CLASSES, 1))
"""True class, predicted class and its probability; some classes occur in no example or in no prediction."""


def judged(predictions, classes=CLASSES):
    labels, predicted, confidence = map(np.array, zip(*predictions, strict=True))
    return Judgement.of(classes, labels, predicted, confidence), labels, predicted


def calibration_error(labels, predicted, confidence, bins=15):
    """Guo et al., ICML 2017, section 2 and eq. 3, as it stands there."""
    n, total = len(labels), 0.0
    for m in range(1, bins + 1):
        members = [i for i in range(n) if (m - 1) / bins < confidence[i] <= m / bins]
        if members:
            accuracy = sum(labels[i] == predicted[i] for i in members) / len(members)
            mean = sum(confidence[i] for i in members) / len(members)
            total += len(members) / n * abs(accuracy - mean)
    return total


@given(st.lists(PREDICTION, min_size=1, max_size=60))
def test_the_figures_are_those_of_scikit_learn(predictions):
    found, labels, predicted = judged(predictions)
    with warnings.catch_warnings():
        # it warns of classes that occur in one of the two only
        warnings.simplefilter("ignore")
        balanced = balanced_accuracy_score(labels, predicted)
        macro_f1 = f1_score(labels, predicted, average="macro")
    assert found.accuracy == accuracy_score(labels, predicted)
    assert found.balanced_accuracy == pytest.approx(balanced)
    assert found.macro_f1 == pytest.approx(macro_f1)
    assert (found.confusion == confusion_matrix(labels, predicted, labels=range(CLASSES))).all()
    precision, recall, _, support = precision_recall_fscore_support(
        labels, predicted, labels=range(CLASSES), zero_division=np.nan
    )
    of_classes = found.by_class("abcde")
    assert of_classes["support"] == support.tolist()
    for name, expected in (("precision", precision), ("recall", recall)):
        assert [value is None for value in of_classes[name]] == np.isnan(expected).tolist()
        assert [value for value in of_classes[name] if value is not None] == pytest.approx(
            expected[~np.isnan(expected)].tolist()
        )


@given(st.lists(PREDICTION, min_size=1, max_size=60))
def test_the_calibration_error_is_that_of_its_paper(predictions):
    found, _, _ = judged(predictions)
    assert found.ece == pytest.approx(calibration_error(*zip(*predictions, strict=True)), abs=1e-12)


@pytest.mark.parametrize("edge", [m / 15 for m in range(1, 16)])
def test_a_probability_on_the_edge_of_two_bins_is_in_the_lower_one(edge):
    predictions = [(0, 0, edge), (1, 0, edge - 1e-3), (0, 0, min(edge + 1e-3, 1))]
    found, _, _ = judged(predictions)
    assert found.ece == pytest.approx(calibration_error(*zip(*predictions, strict=True)))


def test_certain_and_right_is_no_error_certain_and_wrong_is_the_largest():
    assert judged([(0, 0, 1.0), (1, 1, 1.0)])[0].ece == 0
    assert judged([(0, 1, 1.0), (1, 0, 1.0)])[0].ece == 1


def test_a_network_that_says_nothing_has_no_calibration_but_an_accuracy():
    found, _, _ = judged([(0, 0, np.nan), (1, 0, np.nan)])
    assert (found.accuracy, found.ece) == (0.5, None)


def test_the_order_of_the_classes_does_not_change_the_balanced_accuracy_in_the_last_digit():
    rng = np.random.RandomState(0)
    labels = np.repeat(np.arange(7), [3, 7, 11, 13, 17, 19, 23])
    predicted = np.where(rng.rand(len(labels)) < 0.7, labels, (labels + 1) % 7)
    found = set()
    for _ in range(50):
        order = rng.permutation(7)
        found.add(Judgement.of(7, order[labels], order[predicted], np.ones(len(labels))).balanced_accuracy)
    assert len(found) == 1


def test_a_set_that_there_is_not_has_figures_of_none():
    assert set(figures_of("val", None).values()) == {None}
    assert figures_of("val", None).keys() == figures_of("val", judged([(0, 0, 0.5)])[0]).keys()
