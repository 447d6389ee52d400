"""Runs that are interrupted and go on, against the same runs without an interruption."""

import json
import time

import attrs
import pytest
import torch
from safetensors.torch import load_file

from reweight_core import UserError, configure, hookimpl, resume, train
from reweight_core.cli.main import main
from reweight_core.files import locked
from reweight_core.runs.checkpoint import load_latest

STEPS_AN_EPOCH = 5


class Interrupt:
    """Interrupts a run after a step, or after an epoch."""

    def __init__(self, step=None, epoch=None):
        self._step, self._epoch = step, epoch

    @hookimpl
    def observe_step(self, done, total):
        if done == self._step:
            raise KeyboardInterrupt

    @hookimpl
    def observe_epoch(self, metrics):
        if metrics["epoch"] == self._epoch:
            raise KeyboardInterrupt


def options(method, **more):
    given = {"method": method, "data": "digits", "noise": "uniform:0.4", "meta_size": 20, "meta_batch_size": 20}
    given |= {"batch_size": 300, "epochs": 4, "checkpoint_every": "1epochs", "device": "cpu", "val_size": 20}
    return given | more


RUNS = {
    "erm": options("erm"),
    "random": options("random"),
    # learns nothing, so it ends after its fourth epoch
    "patience": options("erm", epochs=9, patience=3, lr=1e-30),
    "l2rw": options("l2rw"),
    "mwnet": options("mwnet", meta_every=2, optimizer="adam", lr=1e-3),
    "gdw": options("gdw", checkpoint_every="2epochs"),
    "clean-only": options("clean-only"),
    "fsr": options("fsr", dictionary_size=30, probe_size=20, warmup_epochs=2, relabel_warmup_epochs=1)
    | {"schedule": "cyclic", "with": ["mixup", "relabel", "label-smoothing", "ema"]},
    # what has stages of its own is interrupted where the second begins, and in it
    "forward": options("erm", loss="forward", forward_estimate_epochs=3),
    "pencil": options("pencil", epochs=6, correct_from=3, correct_until=5),
    "glc": options("glc", first_epochs=3) | {"with": ["fine-tune"]},
    "both": options("insw", meta_use="both") | {"with": ["fine-tune"]},
    "co-teaching": options("co-teaching", loss="elr") | {"with": ["resample"]},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The run of each name, made once."""
    root, made = tmp_path_factory.mktemp("uninterrupted"), {}

    def run(name):
        if name not in made:
            made[name] = train(configure(**RUNS[name], out=root / name)).folder
        return made[name]

    return run


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("seconds")} for line in lines]


def assert_same_run(one, other):
    found, expected = (load_latest(folder / "checkpoints") for folder in (one, other))
    for part in ("model", "state", "best"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            assert torch.equal(tensor, theirs[key]), key
    untimed = [attrs.evolve(saved.manifest, run="", seconds=0, history=[]) for saved in (found, expected)]
    assert untimed[0] == untimed[1]
    assert [line["epoch"] for line in found.manifest.history] == list(range(1, expected.manifest.epoch + 1))
    assert metrics(one) == metrics(other)
    samples = [load_file(folder / "samples.safetensors") for folder in (one, other)]
    assert all(torch.equal(column, samples[1][name]) for name, column in samples[0].items())
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (one, other)]
    timed = {"seconds", "seconds_per_step", "peak_memory_bytes"}
    for key in summaries[1].keys() - timed:
        assert summaries[0][key] == summaries[1][key]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("interrupt", [{"step": 3 * STEPS_AN_EPOCH + 2}, {"epoch": 3}], ids=["step", "epoch"])
def test_a_resumed_run_is_the_uninterrupted_one(name, interrupt, uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(configure(**RUNS[name], out=tmp_path / "run"), observers=[Interrupt(**interrupt)])
    assert load_latest(tmp_path / "run" / "checkpoints").manifest.epoch <= 3
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted(name))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_within_an_epoch(name, uninterrupted, tmp_path):
    step = 3 * STEPS_AN_EPOCH + 4
    options = RUNS[name] | {"checkpoint_every": "2steps"}
    with pytest.raises(KeyboardInterrupt):
        train(configure(**options, out=tmp_path / "run"), observers=[Interrupt(step=step)])
    assert load_latest(tmp_path / "run" / "checkpoints").manifest.within.steps
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted(name))


def test_an_interruption_right_after_a_checkpoint_repeats_nothing(uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(configure(**RUNS["erm"], out=tmp_path / "run"), observers=[Interrupt(step=2 * STEPS_AN_EPOCH + 1)])
    seen = Interrupt()
    epochs = []
    seen.observe_epoch = hookimpl(lambda metrics: epochs.append(metrics["epoch"]))
    resume(tmp_path / "run", observers=[seen])
    assert epochs == [3, 4]
    assert_same_run(tmp_path / "run", uninterrupted("erm"))


@pytest.fixture
def interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(configure(**RUNS["erm"], out=tmp_path / "run"), observers=[Interrupt(step=2 * STEPS_AN_EPOCH + 1)])
    return tmp_path / "run"


def test_a_torn_checkpoint_is_passed_over(interrupted, uninterrupted):
    newest = sorted((interrupted / "checkpoints").iterdir())[-1]
    (newest / "state.safetensors").write_bytes(b"torn")
    resume(interrupted)
    assert_same_run(interrupted, uninterrupted("erm"))


def test_the_command_goes_on_and_shows_the_result(interrupted, capsys):
    main(["resume", str(interrupted)])
    assert "test accuracy (last epoch)" in capsys.readouterr().out
    assert (interrupted / "summary.json").exists()


def change(folder, *path, to):
    content = json.loads((folder / "config.json").read_text())
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = to
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("versions", "torch"), "1.0", r"cannot go on exactly as it began .torch: 1\.0, now \d"),
        (("device",), "NVIDIA H200", "cannot go on exactly as it began .device: NVIDIA H200, now cpu"),
        (("options", "seed"), 5, "the data are not those that the run began with"),
    ],
)
def test_what_could_not_be_exact_is_refused(interrupted, path, value, message):
    change(interrupted, *path, to=value)
    before = (interrupted / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=message) as refused:
        resume(interrupted)
    assert "\n" not in str(refused.value)
    assert (interrupted / "metrics.jsonl").read_bytes() == before


def test_where_there_is_nothing_to_go_on_with_it_is_said(uninterrupted, tmp_path):
    with pytest.raises(UserError, match="this run is finished"):
        resume(uninterrupted("erm"))
    with pytest.raises(UserError, match="not the folder of a run"):
        resume(tmp_path)


@pytest.mark.parametrize("left", ["", "{}\n{", None], ids=["empty", "torn", "missing"])
def test_what_was_lost_of_the_metrics_comes_back_from_the_checkpoint(interrupted, uninterrupted, left):
    # a machine that is switched off may lose what was written last
    if left is None:
        (interrupted / "metrics.jsonl").unlink()
    else:
        (interrupted / "metrics.jsonl").write_text(left)
    resume(interrupted)
    assert_same_run(interrupted, uninterrupted("erm"))


def test_a_run_that_is_still_at_work_is_left_alone(interrupted):
    with locked(interrupted, "it"), pytest.raises(UserError, match="another process is at work in it"):
        resume(interrupted)


def test_a_run_without_a_checkpoint_begins_again(uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(configure(**RUNS["gdw"], out=tmp_path / "run"), observers=[Interrupt(step=2)])
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted("gdw"))


def test_the_time_of_a_resumed_run_is_that_of_all_its_parts(tmp_path, monkeypatch):
    clock, away = time.perf_counter, 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + away)

    class Slow(Interrupt):
        """Makes the first epoch take a thousand seconds."""

        @hookimpl
        def observe_epoch(self, metrics):
            nonlocal away
            away = 1000.0

    with pytest.raises(KeyboardInterrupt):
        train(configure(**RUNS["erm"], out=tmp_path / "run"), observers=[Slow(step=2 * STEPS_AN_EPOCH + 1)])
    # what lies between the two parts does not count
    away = 5000.0
    assert 1000 < resume(tmp_path / "run").summary["seconds"] < 1100


def test_initial_weights_are_not_needed_again(tmp_path):
    first = train(configure(**RUNS["erm"] | {"epochs": 1}, out=tmp_path / "first"))
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((sorted((first.folder / "checkpoints").iterdir())[-1] / "model.safetensors").read_bytes())
    begun = RUNS["erm"] | {"init_from": weights}
    whole = train(configure(**begun, out=tmp_path / "whole")).folder
    with pytest.raises(KeyboardInterrupt):
        train(configure(**begun, out=tmp_path / "run"), observers=[Interrupt(step=2 * STEPS_AN_EPOCH + 1)])
    weights.unlink()
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)
