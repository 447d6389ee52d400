"""What a run says while it trains, where its output is no terminal."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from reweight_core.cli import progress
from reweight_core.cli.progress import Progress, description, duration, show_result

CONFIG = {
    "options": {"model": "mlp"},
    "parameters": 85002,
    "device": "cpu",
    "data": {"train_size": 1338, "trusted_size": 0, "meta_size": 100, "classes": 10},
}

EPOCH = {
    "peak_memory_bytes": 1_230_000_000,
    "epoch": 1,
    "train_loss": 1.0,
    "meta_loss": None,
    "val_accuracy": None,
    "test_accuracy": None,
}


def test_a_run_begins_with_network_device_and_examples(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    Progress().begin_run(folder=tmp_path)
    assert capsys.readouterr().out == (
        "mlp, 85,002 parameters, cpu; 1,338 training and 100 trusted examples, 10 classes\n"
    )


def test_without_trusted_examples_there_are_none_named():
    without = CONFIG | {"data": CONFIG["data"] | {"meta_size": 0}}
    assert description(without).endswith("; 1,338 training examples, 10 classes")


def test_trusted_examples_that_are_trained_on_are_named():
    trained = CONFIG | {"data": CONFIG["data"] | {"train_size": 1388, "trusted_size": 50, "meta_size": 50}}
    assert "; 1,388 training (50 of them trusted) and 50 trusted examples, 10 classes" in description(trained)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (12.4, "12 s"), (99, "99 s"), (130, "2 min"), (5999, "100 min"), (7200, "2 h"), (360_000, "100 h")],
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand: ``clock.now``; the process has used 1.23 GB."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr("reweight_core.machine.meters.peak_memory", lambda device: 1_230_000_000)
    return clock


@pytest.mark.parametrize("behind", [0, 60])
def test_every_epoch_says_how_long_the_rest_takes_from_the_first_twenty_steps_on(behind, clock, capsys):
    """A step takes 2 s, the first 50; a resumed run does not count those that it has behind it."""
    shown, said = Progress(), {}
    for step in range(behind + 1, 106):
        clock.now += 50 if step == behind + 1 else 2
        shown.observe_step(done=step, total=105)
        if step % 15 == 0:
            capsys.readouterr()
            shown.observe_epoch(EPOCH)
            said[step - behind] = capsys.readouterr().out.removesuffix("\n").removeprefix("epoch 1  loss 1.000")
    left = {step: f"  {duration(2 * (105 - behind - step))} left" for step in range(30, 105 - behind, 15)}
    left[30] += ", 1.2 GB of memory"
    assert said == {15: "", **left, 105 - behind: ""}


def test_a_long_epoch_has_a_line_now_and_then(clock, capsys):
    shown, said = Progress(), []
    for step in range(1, 1001):
        clock.now += 10
        shown.observe_step(done=step, total=2000)
        said += [(clock.now, line) for line in capsys.readouterr().out.splitlines()]
    times = [time for time, _ in said]
    # a minute apart, later a twentieth of the whole time: fewer than the 166 minutes
    assert times[:4] == [60, 120, 180, 240]
    assert len(times) < 100
    assert all(max(60, later / 20) <= later - earlier < max(60, later / 20) + 10 for earlier, later in pairwise(times))
    assert said[0][1] == "step 6 of 2,000"
    # twenty steps after the first one the rest is known
    assert said[3][1] == f"step 24 of 2,000  {duration(230 * 1976 / 23)} left, 1.2 GB of memory"
    assert said[4][1] == f"step 30 of 2,000  {duration(290 * 1970 / 29)} left"


def test_short_epochs_have_a_line_each_and_no_other(clock, capsys):
    shown = Progress()
    for step in range(1, 101):
        clock.now += 10
        shown.observe_step(done=step, total=200)
        if step % 5 == 0:
            shown.observe_epoch(EPOCH)
    assert [line[:7] for line in capsys.readouterr().out.splitlines()] == ["epoch 1"] * 20


def test_quiet_means_no_line_at_all(clock, capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with Progress(quiet=True) as shown:
        shown.begin_run(folder=tmp_path)
        for step in range(1, 101):
            clock.now += 100
            shown.observe_step(done=step, total=100)
        shown.observe_epoch(EPOCH)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({"test_accuracy": 0.93311, "val_accuracy": 0.5}, "test accuracy 0.9331"),
        ({"test_accuracy": None, "val_accuracy": 0.5}, "validation accuracy 0.5000"),
        ({"test_accuracy": None, "val_accuracy": None}, "finished"),
    ],
)
def test_a_result_is_a_line_or_json(figures, line, capsys):
    show_result(figures, Path("runs/mine"), quiet=True)
    assert capsys.readouterr().out == f"runs/mine: {line}\n"
    show_result(figures, Path("runs/mine"), quiet=True, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"run": "runs/mine", **figures}
