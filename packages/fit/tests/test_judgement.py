import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_fit.judgement import TIE, Judgement, best_of

NAN = float("nan")


def judgement(*right, weights=None):
    return Judgement(np.array(right, float), np.ones(len(right)) if weights is None else np.array(weights, float))


def test_parts_are_put_together_by_position():
    parts = [(np.array([0, 2]), np.array([True, False])), (np.array([2, 3]), np.array([True, True]))]
    found = Judgement.of(np.ones(5), parts)
    np.testing.assert_array_equal(found.right, [1, NAN, 0.5, 1, NAN])
    assert found.judged.tolist() == [True, False, True, True, False]
    assert found.accuracy() == pytest.approx(2.5 / 3)


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.data())
def test_the_difference_is_the_mean_of_the_differences_and_its_error_falls_with_agreement(right, data):
    other = data.draw(st.lists(st.booleans(), min_size=len(right), max_size=len(right)))
    one, two = judgement(*right), judgement(*other)
    ahead, error = one.ahead_of(two)
    assert ahead == pytest.approx(one.accuracy() - two.accuracy())
    back, same = two.ahead_of(one)
    assert (back, same) == (pytest.approx(-ahead), pytest.approx(error))
    assert 0 < one.ahead_of(one)[1] <= error


def test_the_error_of_a_difference_is_that_of_a_mean():
    generator = np.random.default_rng(0)
    right, other = generator.random((2, 2000)) < [[0.8], [0.6]]
    difference = right.astype(float) - other
    _, error = judgement(*right).ahead_of(judgement(*other))
    assert error == pytest.approx(difference.std(ddof=1) / np.sqrt(2000), rel=0.01)
    assert judgement(*right).standard_error() == pytest.approx(np.sqrt(0.16 / 2000), rel=0.05)


def test_an_example_of_weight_two_counts_as_two():
    once = judgement(1, 0, 1, 1, 0, 0)
    twice = judgement(1, 0, 1, 0, weights=[1, 1, 2, 2])
    assert twice.accuracy() == pytest.approx(once.accuracy())
    assert judgement(1, 1, 0, 0, weights=[1, 1, 2, 2]).ahead_of(twice)[0] == pytest.approx(1 / 3 - 1 / 2)
    # six examples say more than four of unlike weight
    assert twice.standard_error() > once.standard_error()


def test_what_was_judged_on_easy_examples_is_expected_to_do_as_well_as_its_lead_says():
    reference = judgement(1, 1, 1, 0, 0, 0)
    assert judgement(1, 1, NAN, NAN, NAN, NAN).estimate(reference) == pytest.approx(0.5)
    assert judgement(NAN, NAN, NAN, NAN, 1, 0).estimate(reference) == pytest.approx(1.0)


def test_the_best_is_taken_and_the_simplest_of_those_that_are_hardly_worse():
    plain = judgement(*[1] * 50 + [0] * 50)
    ahead_by_one = judgement(*[1] * 51 + [0] * 49)
    ahead_by_ten = judgement(*[1] * 60 + [0] * 40)
    assert ahead_by_one.ahead_of(plain)[0] <= ahead_by_one.ahead_of(plain)[1] / TIE
    judged = {"plain": plain, "one": ahead_by_one, "ten": ahead_by_ten}
    assert best_of(judged, "plain") == "ten"
    assert best_of({"plain": plain, "same": plain}, "plain") == "plain"
    assert best_of({"same": plain, "plain": plain}, "plain") == "same"
