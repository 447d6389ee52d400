import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_core.errors import UserError
from reweight_core.training.schedules import cosine, cyclic, schedule


def test_the_cosine_is_the_closed_form_and_changes_by_epoch():
    assert cosine(0, 80) == 1
    assert cosine(40, 80) == pytest.approx(0.5)
    rate = schedule("cosine", 80, None, 0.1)
    assert rate(40.9) == rate(40.0) == pytest.approx(0.5)
    assert rate(79.5) == pytest.approx(math.sin(math.pi / 160) ** 2)


def test_cycles_double_in_length_and_their_peaks_fall_by_a_tenth():
    peaks = [cyclic(start) for start in (0, 1, 3, 7, 15, 31, 63)]
    assert peaks == pytest.approx([0.9**k for k in range(7)])
    for end in (1, 3, 7, 15, 31, 63, 127):
        assert cyclic(end - 1e-9) == pytest.approx(0, abs=1e-9)
    # the middle of the cycle from 3 to 7
    assert cyclic(5) == pytest.approx(0.9**2 / 2)


@given(st.floats(0, 1000))
def test_a_cyclic_rate_is_between_zero_and_one(done):
    assert 0 <= cyclic(done) <= 1


def test_steps_drop_at_their_epochs():
    rate = schedule("step", 200, "160,180", 0.01)
    assert [rate(epoch) for epoch in (0, 159.99, 160, 179.99, 180, 199)] == pytest.approx(
        [1, 1, 0.01, 0.01, 1e-4, 1e-4]
    )
    by_default = schedule("step", 10, None, 0.1)
    assert [by_default(epoch) for epoch in (7, 8, 9)] == pytest.approx([1, 0.1, 0.01])
    assert schedule("constant", 10, None, 0.1)(9) == 1


@pytest.mark.parametrize("drops", ["5;6", "", "-5", "0,5", "nan", "inf"])
def test_drops_that_are_no_epochs_are_refused(drops):
    with pytest.raises(UserError, match="--lr-drops"):
        schedule("step", 10, drops, 0.1)


def test_drops_beyond_the_run_are_warned_of_and_other_schedules_have_none():
    with pytest.warns(UserWarning, match="--lr-drops 5,20: not all of these epochs come in a run of 10"):
        schedule("step", 10, "5,20", 0.1)
    assert schedule("constant", 10, "5", 0.1)(9) == 1
