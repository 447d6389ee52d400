import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts

from reweight_core.config.run_config import RunConfig
from reweight_core.engine.stage import Stage
from reweight_core.errors import PluginError, UserError
from reweight_core.training.schedules import cosine, cyclic, of_the_run, schedules


def rates_of(stage_lr, epochs, **options):
    """The rate at the beginning of each epoch of a run of one stage."""
    config = RunConfig(lr=stage_lr, **options)
    (factor,) = schedules(config, [Stage("train", epochs, stage_lr)], [epochs], "core")
    return [stage_lr * factor(float(epoch)) for epoch in range(epochs)]


def torchs(scheduler, epochs, lr):
    """The same by torch's own scheduler, stepped after each epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    of_optimizer, rates = scheduler(optimizer), []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        of_optimizer.step()
    return rates


def test_the_cosine_is_the_closed_form_and_changes_by_epoch():
    assert cosine(0, 80) == 1
    assert cosine(40, 80) == pytest.approx(0.5)
    rate = of_the_run(RunConfig(schedule="cosine"), 80)
    assert rate(40.9) == rate(40.0) == pytest.approx(0.5)
    assert rate(79.5) == pytest.approx(math.sin(math.pi / 160) ** 2)


@pytest.mark.parametrize("floor", [0.0, 0.001])
def test_the_cosine_with_a_floor_is_torchs(floor):
    expected = torchs(lambda optimizer: CosineAnnealingLR(optimizer, 25, eta_min=floor), 25, 0.02)
    assert rates_of(0.02, 25, schedule="cosine", lr_floor=floor) == pytest.approx(expected)


def test_restarts_are_torchs_and_change_by_epoch():
    expected = torchs(lambda optimizer: CosineAnnealingWarmRestarts(optimizer, 10, eta_min=0.001), 35, 0.02)
    assert rates_of(0.02, 35, schedule="restarts", lr_floor=0.001) == pytest.approx(expected)
    rate = of_the_run(RunConfig(schedule="restarts", lr_period=4), 80)
    assert rate(5.9) == rate(5.0) == rate(1.0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert rate(8.0) == 1


def test_the_floor_is_a_rate_whatever_the_stages_own():
    config = RunConfig(lr=0.1, lr_floor=0.01, schedule="cosine")
    stages = [Stage("a", 10, 0.1), Stage("b", 10, 0.02), Stage("c", 10, 0.001), Stage("d", 10, 0.0)]
    factors = schedules(config, stages, [10] * 4, "core")
    ends = [stage.lr * factor(10.0) for stage, factor in zip(stages, factors, strict=True)]
    # a stage that begins below the floor stays where it is
    assert ends == pytest.approx([0.01, 0.01, 0.001, 0.0])
    with pytest.raises(UserError, match=r"--lr-floor 0\.2: must not be above --lr, which is 0\.1"):
        schedules(RunConfig(lr=0.1, lr_floor=0.2), stages, [10] * 4, "core")


def test_a_warm_up_is_linear_and_the_schedule_counts_through_it():
    plain, warmed = (rates_of(0.1, 10, schedule="step", lr_drops="3,8", warmup=warmup) for warmup in (0, 5))
    assert warmed == pytest.approx([rate * min(epoch / 5, 1) for epoch, rate in enumerate(plain)])
    config = RunConfig(warmup=0.5, schedule="constant")
    first, second = schedules(config, [Stage("a", 1, 0.1), Stage("b", 1, 0.1)], [1, 1], "core")
    assert [first(k / 8) for k in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    # only the first stage begins the run
    assert second(0.0) == 1


def test_a_stages_own_schedule_is_used_and_warmed_up():
    config = RunConfig(warmup=2.0, schedule="cosine")
    own = Stage("a", 4, 0.1, schedule=lambda done: 10 + done)
    (factor,) = schedules(config, [own], [4], "method 'mine'")
    assert [factor(done) for done in (0, 1, 2, 3)] == [0, 5.5, 12, 13]


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
    rate = of_the_run(RunConfig(schedule="step", lr_drops="160,180", lr_drop_factor=0.01), 200)
    assert [rate(epoch) for epoch in (0, 159.99, 160, 179.99, 180, 199)] == pytest.approx(
        [1, 1, 0.01, 0.01, 1e-4, 1e-4]
    )
    by_default = of_the_run(RunConfig(schedule="step"), 10)
    assert [by_default(epoch) for epoch in (7, 8, 9)] == pytest.approx([1, 0.1, 0.01])
    assert of_the_run(RunConfig(schedule="constant"), 10)(9) == 1


@pytest.mark.parametrize("drops", ["5;6", "", "-5", "0,5", "nan", "inf"])
def test_drops_that_are_no_epochs_are_refused(drops):
    with pytest.raises(UserError, match="--lr-drops"):
        rates_of(0.1, 10, schedule="step", lr_drops=drops)


def test_drops_beyond_the_run_are_warned_of_and_other_schedules_have_none():
    with pytest.warns(UserWarning, match="--lr-drops 5,20: not all of these epochs come in a run of 10"):
        rates_of(0.1, 10, schedule="step", lr_drops="5,20")
    with pytest.warns(UserWarning, match="--lr-drops 5: does nothing here, without --schedule step"):
        assert rates_of(0.1, 10, schedule="constant", lr_drops="5") == [0.1] * 10


def test_drops_that_come_in_one_stage_are_not_warned_of():
    stages = [Stage("long", 10, 0.1), Stage("short", 2, 0.01)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factors = schedules(RunConfig(schedule="step", lr_drops="5"), stages, [10, 2], "core")
    assert [factors[0](6), factors[1](1)] == pytest.approx([0.1, 1])


@pytest.mark.parametrize("wrong", [None, float("inf"), float("nan"), "1"])
def test_a_factor_that_is_no_finite_number_is_told_with_whose_stage_it_is(wrong):
    (factor,) = schedules(RunConfig(), [Stage("own", 4, 0.1, schedule=lambda epochs: wrong)], [4], "method 'mine'")
    with pytest.raises(PluginError, match=r"^method 'mine': Stage.schedule returned"):
        factor(0.0)
