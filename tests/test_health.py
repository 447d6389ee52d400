"""Runs that fail, and what they say of it: while they train, when they end, and when they are resumed."""

import json
import warnings

import pytest

from reweight_core import UserError, configure, hookimpl, resume, train
from reweight_core.cli.main import main
from reweight_core.errors import DivergedError
from reweight_core.runs.checkpoint import load_latest


class Uphill:
    """Makes every step of the run after the first epoch one up the loss, in place of down."""

    @hookimpl(wrapper=True)
    def generate_weights(self, step):
        weights = yield
        return -weights if step.epoch else weights


class Nothing:
    """Weighs every example with 0."""

    @hookimpl(wrapper=True)
    def generate_weights(self, step):
        weights = yield
        return 0 * weights


class Interrupt:
    """Interrupts a run after an epoch."""

    def __init__(self, epoch):
        self._epoch = epoch

    @hookimpl
    def observe_epoch(self, metrics):
        if metrics["epoch"] == self._epoch:
            raise KeyboardInterrupt


def options(out, **more):
    given = {
        "method": "erm",
        "data": "digits",
        "batch_size": 300,
        "device": "cpu",
        "checkpoint_every": "1epochs",
        "out": out,
    }
    return configure(**given | {"lr": 1.0, "schedule": "constant", "max_grad_norm": 1.0, "epochs": 12} | more)


def trained(config, *observers, go_on=False):
    """Train or resume; return the summary and the warnings that tell of problems."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = resume(config.out, observers) if go_on else train(config, observers)
    return run.summary, [str(one.message) for one in caught if "(epoch " in str(one.message)]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """The folder of a run that was ended because it had diverged, and what was said."""
    folder = tmp_path_factory.mktemp("lost") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DivergedError) as stopped:
            train(options(folder), [Uphill()])
    return folder, str(stopped.value)


def test_a_run_that_has_diverged_ends_early_and_says_what_to_lower(lost):
    folder, said = lost
    epochs = lines(folder)
    last = len(epochs)
    assert 2 < last < 12
    assert said.startswith(f"diverged (epoch {last}): the training loss of 2 epochs in a row is above 100 times")
    assert "lower --lr" in said
    assert said.endswith(f"the run was ended and is kept in {folder} (a new run with --stop-when never goes on)")
    # not before: the rule needs two epochs above 100 log 10
    assert [epoch["train_loss"] > 230.3 for epoch in epochs] == [False] * (last - 2) + [True] * 2
    assert load_latest(folder / "checkpoints").manifest.epoch == last
    assert not (folder / "summary.json").exists()


def test_resuming_it_says_the_same_line_and_changes_nothing(lost, capsys):
    folder, said = lost
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(DivergedError) as again:
        resume(folder)
    assert str(again.value) == said
    with pytest.raises(SystemExit) as ended:
        main(["resume", str(folder)])
    assert (ended.value.code, capsys.readouterr().err) == (1, f"Error: {said}\n")
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_run_that_is_not_to_be_ended_warns_once_and_keeps_it_in_its_summary(lost, tmp_path):
    folder, said = lost
    summary, warned = trained(options(tmp_path / "run", stop_when="never"), Uphill())
    assert lines(tmp_path / "run")[-1]["epoch"] == summary["epochs"] == 12
    (problem,) = (found for found in summary["health"] if found["problem"] == "diverged")
    assert problem["epoch"] == lines(folder)[-1]["epoch"]
    assert said.startswith(f"diverged (epoch {problem['epoch']}): {problem['message']};")
    assert warned == [f"{found['problem']} (epoch {found['epoch']}): {found['message']}" for found in summary["health"]]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["health"] == summary["health"]


def test_what_is_found_in_the_last_epoch_ends_nothing(lost, tmp_path):
    epochs = lines(lost[0])[-1]["epoch"]
    summary, warned = trained(options(tmp_path / "run", epochs=epochs), Uphill())
    assert [(found["problem"], found["epoch"]) for found in summary["health"]] == [("diverged", epochs)]
    assert len(warned) == 1


@pytest.mark.parametrize(("interrupted", "told_again"), [(2, True), (3, True), (4, False)])
def test_a_resumed_run_finds_what_the_uninterrupted_one_finds(interrupted, told_again, tmp_path):
    whole, warned = trained(options(tmp_path / "whole", epochs=6), Nothing())
    assert [(found["problem"], found["epoch"]) for found in whole["health"]] == [("zero weights", 3)]
    assert len(warned) == 1
    config = options(tmp_path / "run", epochs=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt):
            train(config, [Nothing(), Interrupt(interrupted)])
    # the interrupted epoch has no checkpoint and is trained again; what was told of those before it is not told again
    summary, warned_again = trained(config, Nothing(), go_on=True)
    assert summary["health"] == whole["health"]
    assert warned_again == (warned if told_again else [])


def test_a_healthy_run_has_an_empty_entry(tmp_path):
    summary, warned = trained(options(tmp_path / "run", lr=0.1, epochs=3))
    assert (summary["health"], warned) == ([], [])


def test_numbers_that_are_not_finite_keep_their_own_error(tmp_path):
    with pytest.raises(UserError, match="became infinite or not a number; lower --lr") as stopped:
        train(options(tmp_path / "run", max_grad_norm=None), [Uphill()])
    assert not isinstance(stopped.value, DivergedError)


@pytest.mark.parametrize("command", ["train", "resume"])
def test_the_program_ends_with_a_line_for_each_problem(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("reweight_core.training.diagnosis.STEPS", 4)
    folder = tmp_path / "run"
    given = {"data": "digits", "batch-size": 300, "device": "cpu", "epochs": 4, "lr": 1e-9, "out": folder}
    main(["train", *(f"--{name}={value}" for name, value in given.items())])
    if command == "resume":
        capsys.readouterr()
        (folder / "summary.json").unlink()
        main(["resume", str(folder)])
    (problem,) = json.loads((folder / "summary.json").read_text())["health"]
    assert problem["problem"] in ("chance", "one class")
    told = f"{problem['problem']} (epoch {problem['epoch']}): {problem['message']}"
    seen = capsys.readouterr()
    assert seen.out.count(told) == 1
    assert seen.err == ("" if command == "resume" else f"Warning: {told}\n")
