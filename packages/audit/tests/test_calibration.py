"""Calibration: probabilities that hold what they say."""

import numpy as np
import pytest
from scipy.stats import norm

from reweight_audit.calibration import from_known, from_two_groups, shares
from reweight_audit.signals import Known


def drawn(share, shift=2.0, size=4000, known=400, seed=0):
    """A signal that is normal around `shift` where labels are wrong and around 0 where they are right."""
    rng = np.random.RandomState(seed)
    wrong = rng.uniform(size=size) < share
    values = rng.normal(size=size) + shift * wrong
    return values, wrong, Known(rng.normal(size=known) + shift, rng.normal(size=known))


def calibrated(values, known):
    """`from_known` of examples of one class, all of them the user's."""
    return from_known(values, np.zeros(len(values), int), np.ones(len(values), bool), known)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_probabilities_are_those_of_bayes_rule(share):
    values, _, known = drawn(share)
    wanted = share * norm.pdf(values - 2) / (share * norm.pdf(values - 2) + (1 - share) * norm.pdf(values))
    probability, _ = calibrated(values, known)
    assert np.abs(probability - wanted).mean() < 0.05
    assert probability.mean() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_interval_holds_the_share(share):
    held = 0
    for seed in range(6):
        values, wrong, known = drawn(share, size=500, known=15, seed=seed)
        (found,) = shares(*calibrated(values, known), [np.ones(500, bool)])
        held += found.low <= wrong.mean() <= found.high
    assert held >= 5


def test_planted_examples_do_not_count_among_the_wrong():
    values, _, known = drawn(0.1, size=300, known=100)
    users = np.arange(500) < 300
    of_all = np.concatenate([values, known.wrong, known.right])
    (alone,) = shares(*from_known(of_all, np.zeros(500, int), users, known), [users])
    (beside_others,) = shares(*from_known(of_all, np.zeros(500, int), np.ones(500, bool), known), [users])
    assert alone.value == pytest.approx(0.1, abs=0.04)
    assert beside_others.value > alone.value + 0.04


def test_the_unit_of_the_signal_does_not_matter():
    values, _, known = drawn(0.3, size=500, known=20)
    one, _ = calibrated(values, known)
    other, _ = calibrated(850 + 1000 * values, Known(850 + 1000 * known.wrong, 850 + 1000 * known.right))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_signal_that_points_the_wrong_way_says_nothing():
    values, _, known = drawn(0.3, size=500, known=20)
    probability, draws = calibrated(values, Known(known.right, known.wrong))
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
    probability, draws = from_known(
        values, labels, np.ones(len(values), bool), Known(rng.normal(size=60) + 2, rng.normal(size=60))
    )
    for c, found in enumerate(shares(probability, draws, [labels == 0, labels == 1])):
        assert found.value == pytest.approx(wrong[labels == c].mean(), abs=0.06)
        assert found.low <= wrong[labels == c].mean() <= found.high


def test_without_known_examples_the_interval_is_everything():
    (found,) = shares(np.full(9, 0.2), None, [np.ones(9, bool)])
    assert [found.low, found.high] == [0, 1]
