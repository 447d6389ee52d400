import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reweight_fit.judgement import TEMPERATURES, TIE, Judgement, Lead, best_of, calibrated

NAN = float("nan")


def judgement(*scores, weights=None):
    found = np.array(scores, float)
    return Judgement(found, found, np.ones(len(found)) if weights is None else np.array(weights, float))


def test_parts_are_put_together_by_position():
    labels = np.array([0, 1, 1, 0, 1])
    sure, torn = [9.0, -9.0], [-9.0, 9.0]
    parts = [(np.array([0, 2]), np.array([sure, sure])), (np.array([2, 3]), np.array([torn, sure]))]
    found = Judgement.of(labels, np.ones(5), parts)
    np.testing.assert_array_equal(found.right, [1, NAN, 0.5, 1, NAN])
    assert found.judged.tolist() == [True, False, True, True, False]
    assert found.accuracy() == pytest.approx(2.5 / 3)


def test_a_training_that_is_lost_gets_nothing_right():
    lost = np.full((2, 3), NAN, np.float32)
    found = Judgement.of(np.array([0, 0]), np.ones(2), [(np.array([0, 1]), lost)])
    assert found.right.tolist() == found.scores.tolist() == [0, 0]


def test_a_score_is_the_mean_of_being_right_and_of_the_calibrated_probability():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(500, 3)), generator.integers(0, 3, 500)
    logits[np.arange(500), labels] += 1.5
    # the same network, ten times as sure of itself
    found = [Judgement.of(labels, np.ones(500), [(np.arange(500), scale * logits)]) for scale in (1, 10)]
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=0.02)
    p = calibrated(logits, labels, np.ones(500))
    np.testing.assert_allclose(found[0].scores, ((logits.argmax(1) == labels) + p) / 2)
    temperature = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.LBFGS([temperature], max_iter=100)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(torch.tensor(logits) / temperature, torch.tensor(labels))
        value.backward()
        return value

    optimizer.step(loss)
    fitted = (torch.tensor(logits) / temperature.detach()).softmax(1)[torch.arange(500), torch.tensor(labels)]
    # the grid's steps are a quarter
    assert TEMPERATURES[1] / TEMPERATURES[0] < 1.3
    np.testing.assert_allclose(p, fitted.numpy(), atol=0.05)


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.data())
def test_the_lead_is_the_mean_of_the_differences_and_its_error_falls_with_agreement(right, data):
    other = data.draw(st.lists(st.booleans(), min_size=len(right), max_size=len(right)))
    one, two = judgement(*right), judgement(*other)
    ahead, back = one.ahead_of(two), two.ahead_of(one)
    assert ahead.mean == pytest.approx(one.accuracy() - two.accuracy())
    assert (back.mean, back.deviation) == (pytest.approx(-ahead.mean), pytest.approx(ahead.deviation))
    assert 0 < one.ahead_of(one).deviation <= ahead.deviation


def test_the_error_of_a_lead_is_that_of_a_mean():
    generator = np.random.default_rng(0)
    right, other = generator.random((2, 2000)) < [[0.8], [0.6]]
    difference = right.astype(float) - other
    lead = judgement(*right).ahead_of(judgement(*other))
    assert lead.deviation == pytest.approx(difference.std(ddof=1) / np.sqrt(2000), rel=0.01)
    assert judgement(*right).standard_error() == pytest.approx(np.sqrt(0.16 / 2000), rel=0.05)


def test_an_example_of_weight_two_counts_as_two():
    once = judgement(1, 0, 1, 1, 0, 0)
    twice = judgement(1, 0, 1, 0, weights=[1, 1, 2, 2])
    assert twice.accuracy() == pytest.approx(once.accuracy())
    assert judgement(1, 1, 0, 0, weights=[1, 1, 2, 2]).ahead_of(twice).mean == pytest.approx(1 / 3 - 1 / 2)
    # six examples say more than four of unlike weight
    assert twice.standard_error() > once.standard_error()


def test_what_was_judged_on_easy_examples_is_expected_to_do_as_well_as_its_lead_says():
    reference = judgement(1, 1, 1, 0, 0, 0)
    assert judgement(1, 1, NAN, NAN, NAN, NAN).estimate(reference) == pytest.approx(0.5)
    assert judgement(NAN, NAN, NAN, NAN, 1, 0).estimate(reference) == pytest.approx(1.0)


@given(
    st.lists(st.tuples(st.floats(-0.5, 0.5), st.floats(0.01, 0.5)), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_measurements_add_up_by_bayes_rule_in_any_order(measured, random):
    leads = [Lead(*of_one) for of_one in measured]
    grid = np.linspace(-6, 6, 200_001)
    logarithm = sum(-0.5 * ((grid - lead.mean) / lead.deviation) ** 2 for lead in leads)
    density = np.exp(logarithm - logarithm.max())
    known, shuffled = leads[0], leads[1:]
    random.shuffle(shuffled)
    for lead in shuffled:
        known = known.after(lead)
    mean = np.average(grid, weights=density)
    assert known.mean == pytest.approx(mean, abs=1e-4)
    assert known.deviation == pytest.approx(np.sqrt(np.average((grid - mean) ** 2, weights=density)), rel=1e-3)


def test_the_best_is_taken_and_the_simplest_of_those_that_are_hardly_worse():
    best = Lead(0.1, 0.04)
    within = Lead(0.1 - 0.99 * TIE * best.deviation, 0.01)
    below = Lead(0.1 - 1.01 * TIE * best.deviation, 0.2)
    assert best_of({"simple": below, "less": within, "best": best}, TIE) == "less"
    assert best_of({"simple": below, "best": best, "less": within}, TIE) == "best"
    assert best_of({"plain": Lead(0.0, 0.0), "same": Lead(0.0, 0.02)}, TIE) == "plain"
