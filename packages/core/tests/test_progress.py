"""What a run says while it trains, where its output is no terminal."""

import json

import pytest

from reweight_core.cli import progress
from reweight_core.cli.progress import Progress, description, duration

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


@pytest.mark.parametrize("behind", [0, 60])
def test_the_rest_is_estimated_once_from_the_epochs_of_the_first_twenty_steps(behind, tmp_path, capsys, monkeypatch):
    """A step takes 2 s, the first 50; a resumed run does not count those that it has behind it."""
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    monkeypatch.setattr("reweight_core.machine.meters.peak_memory", lambda device: 1_230_000_000)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    shown = Progress()
    shown.begin_run(folder=tmp_path)
    said = []
    for step in range(behind + 1, 101):
        now += 50 if step == behind + 1 else 2
        shown.observe_step(done=step, total=100)
        if step % 15 == 0:
            shown.observe_epoch(EPOCH)
            said += [(step, line) for line in capsys.readouterr().out.splitlines() if "to go" in line]
    assert said == [(behind + 30, f"about {duration(2 * (70 - behind))} to go, 1.2 GB of memory")]
