"""Calibration: probabilities that hold what they say."""

import numpy as np
import pytest
from scipy.stats import norm

from reweight_audit.calibration import from_known, from_two_groups, shares


def drawn(share, shift=2.0, size=4000, known=400, seed=0):
    """A signal that is normal around `shift` where labels are wrong and around 0 where they are right."""
    rng = np.random.RandomState(seed)
    wrong = rng.uniform(size=size) < share
    values = rng.normal(size=size) + shift * wrong
    return values, wrong, rng.normal(size=known) + shift, rng.normal(size=known)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_probabilities_are_those_of_bayes_rule(share):
    values, _, of_wrong, of_right = drawn(share)
    wanted = share * norm.pdf(values - 2) / (share * norm.pdf(values - 2) + (1 - share) * norm.pdf(values))
    probability, _ = from_known(values, np.zeros(len(values), int), of_wrong, of_right)
    assert np.abs(probability - wanted).mean() < 0.05
    assert probability.mean() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_interval_holds_the_share(share):
    held = 0
    for seed in range(6):
        values, wrong, of_wrong, of_right = drawn(share, size=500, known=15, seed=seed)
        (found,) = shares(*from_known(values, np.zeros(len(values), int), of_wrong, of_right), [np.ones(500, bool)])
        held += found.low <= wrong.mean() <= found.high
    assert held >= 5


def test_the_unit_of_the_signal_does_not_matter():
    values, _, of_wrong, of_right = drawn(0.3, size=500, known=20)
    one, _ = from_known(values, np.zeros(len(values), int), of_wrong, of_right)
    other, _ = from_known(850 + 1000 * values, np.zeros(500, int), 850 + 1000 * of_wrong, 850 + 1000 * of_right)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_signal_that_points_the_wrong_way_says_nothing():
    values, _, of_wrong, of_right = drawn(0.3, size=500, known=20)
    probability, draws = from_known(values, np.zeros(len(values), int), of_right, of_wrong)
    assert not probability.any()
    (found,) = shares(probability, draws, [np.ones(500, bool)])
    assert [found.low, found.high] == [0, 1]


def test_two_groups_are_told_apart_and_the_probability_rises_with_the_signal():
    values, wrong, *_ = drawn(0.3, shift=6.0, size=1000)
    probability = from_two_groups(values)
    assert ((probability > 0.5) == wrong).mean() > 0.99
    assert (np.diff(probability[np.argsort(values)]) >= 0).all()
    assert from_two_groups(np.ones(20)).tolist() == [0] * 20


def test_of_no_examples_nothing_is_known():
    (found,) = shares(np.zeros(3), None, [np.zeros(3, bool)])
    assert [found.low, found.high] == [0, 1]


def test_classes_may_have_shares_of_their_own():
    rng = np.random.RandomState(3)
    labels = np.repeat([0, 1], 1000)
    wrong = rng.uniform(size=2000) < np.array([0.05, 0.5])[labels]
    values = rng.normal(size=2000) + 2 * wrong
    probability, draws = from_known(values, labels, rng.normal(size=60) + 2, rng.normal(size=60))
    for c, found in enumerate(shares(probability, draws, [labels == 0, labels == 1])):
        assert found.value == pytest.approx(wrong[labels == c].mean(), abs=0.06)
        assert found.low <= wrong[labels == c].mean() <= found.high


def test_without_known_examples_the_interval_is_everything():
    (found,) = shares(np.full(9, 0.2), None, [np.ones(9, bool)])
    assert [found.low, found.high] == [0, 1]
