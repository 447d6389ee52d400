"""When runs are saved, how signals end them, and what becomes of damaged checkpoints and of what is not finite."""

import json
import os
import pickle
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from reweight_core import InterruptedRun, UserError, configure, hookimpl, resume, train
from reweight_core.files import write_json
from reweight_core.runs import checkpoint
from reweight_core.runs.checkpoint import load_latest
from reweight_core.training.resume import train_or_resume

STEPS_AN_EPOCH = 5


class At:
    """Does something after a step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    @hookimpl
    def observe_step(self, done, total):
        if done == self.step:
            self.act()


def sends(*numbers):
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


def options(out, **more):
    given = {"method": "erm", "data": "digits", "model": "mlp", "meta_size": 20, "batch_size": 300, "epochs": 2}
    return configure(**given | {"device": "cpu", "augment": "none", "lr": 0.05} | more, out=out)


def model_of(run):
    return load_latest(run / "checkpoints").model


def steps_kept(run):
    return [int(path.name.removeprefix("step-")) for path in sorted((run / "checkpoints").glob("step-*"))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(options(tmp_path_factory.mktemp("whole") / "run")).folder


@pytest.mark.parametrize(
    ("every", "keep", "kept"),
    [("3steps", 2, [9, 10]), ("3steps", 9, [3, 6, 9, 10]), ("1epochs", 2, [5, 10]), ("never", 2, [10])],
)
def test_checkpoints_come_as_often_as_asked_and_the_newest_stay(every, keep, kept, tmp_path):
    assert steps_kept(train(options(tmp_path / "run", checkpoint_every=every, keep=keep)).folder) == kept


def test_minutes_are_those_since_the_last_checkpoint(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    class Slow:
        """A step takes a minute."""

        @hookimpl
        def observe_step(self, done, total):
            nonlocal now
            now += 60

    run = train(options(tmp_path / "run", checkpoint_every="4min", keep=9), observers=[Slow()]).folder
    assert steps_kept(run) == [4, 8, 10]


@pytest.mark.parametrize("text", ["5", "0steps", "1.5steps", "-1min", "5 hours", "epochs", "1e3steps", ""])
def test_other_intervals_are_refused(text):
    with pytest.raises(
        UserError, match=r"--checkpoint-every .*: must say of what: 200steps, 5min or 1epochs, or never"
    ):
        configure(checkpoint_every=text)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_saved_and_it_goes_on(number, status, whole, tmp_path):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as ended:
        train(options(tmp_path / "run"), observers=[At(7, sends(number))])
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert ended.value.status == status
    assert ended.value.__notes__ == [f"saved after step 7: reweight resume {tmp_path / 'run'} goes on from there"]
    assert steps_kept(tmp_path / "run") == [7]
    resume(tmp_path / "run")
    assert all(torch.equal(tensor, model_of(whole)[name]) for name, tensor in model_of(tmp_path / "run").items())


@pytest.mark.parametrize("step", [2 * STEPS_AN_EPOCH, 3])
def test_a_signal_that_a_run_cannot_heed_is_for_what_comes_next(step, tmp_path):
    every = "5min" if step == 2 * STEPS_AN_EPOCH else "never"
    with pytest.raises(KeyboardInterrupt) as ended:
        train(options(tmp_path / "run", checkpoint_every=every), observers=[At(step, sends(signal.SIGINT))])
    assert not hasattr(ended.value, "status")
    assert (tmp_path / "run" / "summary.json").exists() == (every == "5min")


def test_a_process_that_was_forked_ends_when_it_is_asked_to(tmp_path):
    children = []

    def fork():
        child = os.fork()
        if not child:
            while True:
                time.sleep(1)
        children.append(child)

    train(options(tmp_path / "run"), observers=[At(1, fork), At(7, lambda: os.kill(children[0], signal.SIGTERM))])
    _, status = os.waitpid(children[0], 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_an_interrupted_run_can_be_told_to_another_process():
    told = pickle.loads(pickle.dumps(InterruptedRun(signal.SIGTERM, "saved")))
    assert (told.status, told.__notes__) == (143, ["saved"])


def test_a_second_interrupt_ends_it_at_once_and_loses_nothing_that_was_saved(tmp_path):
    with pytest.raises(KeyboardInterrupt) as ended:
        train(
            options(tmp_path / "run", checkpoint_every="3steps"),
            observers=[At(7, sends(signal.SIGINT, signal.SIGINT))],
        )
    assert not hasattr(ended.value, "status")
    assert steps_kept(tmp_path / "run") == [3, 6]


def test_a_program_keeps_its_own_handlers(tmp_path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        train(options(tmp_path / "run"), observers=[At(7, sends(signal.SIGTERM))])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_the_same_line_begins_goes_on_and_leaves_alone(whole, reweight, tmp_path):
    run = tmp_path / "run"
    line = ["train", "--method", "erm", "--model", "mlp", "--batch-size", 300, "--epochs", 2, "--device", "cpu"]
    line += ["--augment", "none", "--lr", 0.05, "--meta-size", 20, "--out", run, "--resume", "auto"]
    for begun in (False, True):
        if begun:
            with pytest.raises(KeyboardInterrupt):
                train(options(run), observers=[At(7, sends(signal.SIGTERM))])
        else:
            # as of a process that was killed while it wrote its first file
            run.mkdir()
            (run / "config.json.partial").write_text("{")
        first = reweight(*line)
        assert first.status == 0, first.err
        assert all(torch.equal(tensor, model_of(whole)[name]) for name, tensor in model_of(run).items())
        if not begun:
            shutil.rmtree(run)
    written = (run / "summary.json").read_bytes()
    again = reweight(*line, "--json")
    assert again.status == 0 and json.loads(again.out).items() >= json.loads(written).items()
    assert (run / "summary.json").read_bytes() == written
    other = reweight(*line, "--lr", 0.1)
    assert other.status == 2
    assert f"the run in {run} has other options (--lr 0.1, there 0.05)" in other.err


def test_options_that_change_no_result_may_differ(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(options(tmp_path / "run"), observers=[At(4, sends(signal.SIGTERM))])
    train_or_resume(options(tmp_path / "run", checkpoint_every="1steps", keep=4, observe=["csv"]))
    assert steps_kept(tmp_path / "run") == [7, 8, 9, 10]
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_a_run_that_begins_again_keeps_nothing_of_its_first_begin(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(options(tmp_path / "run", checkpoint_every="never"), observers=[At(7, sends(signal.SIGINT))])
    assert (tmp_path / "run" / "metrics.jsonl").exists()

    class Failing:
        """Cannot begin."""

        @hookimpl
        def begin_run(self, folder, config, epochs_done):
            raise UserError("the service is down")

    with pytest.raises(UserError, match="is down"):
        resume(tmp_path / "run", observers=[Failing()])
    resume(tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert all(torch.equal(tensor, model_of(whole)[name]) for name, tensor in model_of(tmp_path / "run").items())


def test_a_folder_to_go_on_in_is_needed_and_must_be_a_runs(reweight, tmp_path):
    assert "give --out as well" in reweight("train", "--resume", "auto").err
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    refused = reweight("train", "--resume", "auto", "--out", tmp_path / "photos")
    assert refused.status == 2 and "exists and is not empty" in refused.err
    assert (tmp_path / "photos" / "cat.jpg").exists()
    (tmp_path / "file").write_text("")
    refused = reweight("train", "--resume", "auto", "--out", tmp_path / "file")
    assert refused.status == 2 and "exists and is not empty" in refused.err


def test_a_finished_run_can_be_trained_longer(tmp_path):
    longer = train(options(tmp_path / "longer", schedule="constant", epochs=3)).folder
    run = train(options(tmp_path / "run", schedule="constant")).folder
    with pytest.raises(UserError, match="this run is finished"):
        resume(run)
    with pytest.raises(UserError, match=r"epochs: 2, now 3\); --allow-changes"):
        resume(run, more_epochs=1)
    assert (run / "summary.json").exists()
    assert resume(run, more_epochs=1, allow_changes=True).summary["epochs"] == 3
    assert all(torch.equal(tensor, model_of(longer)[name]) for name, tensor in model_of(run).items())
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["epochs"] == 3
    assert config["changes"] == [{"after_step": 2 * STEPS_AN_EPOCH, "changed": ["epochs: 2, now 3"]}]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_epochs_that_would_not_be_trained_are_refused(tmp_path):
    tuned = train(options(tmp_path / "tuned", **{"with": ["fine-tune"]})).folder
    with pytest.raises(UserError, match="its epochs are over: the run is in stage 'fine-tune', which follows them"):
        resume(tuned, more_epochs=1, allow_changes=True)
    patient = train(options(tmp_path / "patient", epochs=9, patience=1, val_size=50, lr=1e-30)).folder
    with pytest.raises(UserError, match="--patience ended the run, and would again"):
        resume(patient, more_epochs=1, allow_changes=True)
    for run in (tuned, patient):
        assert (run / "summary.json").exists() and "changes" not in (run / "config.json").read_text()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run with two checkpoints."""
    run = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(options(run, checkpoint_every="3steps"), observers=[At(8, sends(signal.SIGINT, signal.SIGINT))])
    assert steps_kept(run) == [3, 6]
    return run


@given(data=st.data())
def test_a_damaged_checkpoint_is_never_read(data, interrupted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "checkpoints"
    shutil.copytree(interrupted / "checkpoints", folder)
    newest = folder / "step-00000006"
    file = data.draw(st.sampled_from(sorted(newest.iterdir())))
    content = bytearray(file.read_bytes())
    kind = data.draw(st.sampled_from(["truncated", "flipped", "missing", "of another"]))
    if kind == "truncated":
        file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    elif kind == "flipped":
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content)
    elif kind == "missing":
        file.unlink()
    else:
        shutil.copy(folder / "step-00000003" / file.name, file)
    with pytest.warns(UserWarning, match=r"a checkpoint is damaged \(step-00000006: .*; step-00000003 is used"):
        assert load_latest(folder).manifest.step == 3
    shutil.rmtree(folder / "step-00000003")
    with pytest.raises(UserError, match="no checkpoint is whole"):
        load_latest(folder)


def test_a_checkpoint_of_another_run_is_not_gone_on_from(interrupted, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    shutil.copytree(whole / "checkpoints" / "step-00000010", run / "checkpoints" / "step-00000010")
    with pytest.warns(UserWarning, match=r"step-00000010: is of another run\); step-00000006 is used"):
        resume(run)
    assert all(torch.equal(tensor, model_of(whole)[name]) for name, tensor in model_of(run).items())


def test_damaged_and_unfinished_checkpoints_do_not_stay(interrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    (run / "checkpoints" / "step-00000006" / "model.safetensors").unlink()
    (run / "checkpoints" / ".step-00000008.partial").mkdir()
    with pytest.warns(UserWarning, match="step-00000003 is used"), pytest.raises(KeyboardInterrupt):
        resume(run, observers=[At(4, sends(signal.SIGTERM))])
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]


def test_nothing_outside_a_checkpoint_is_opened(interrupted, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(interrupted / "checkpoints" / "step-00000006", folder / "step-00000006")
    shutil.copy(folder / "step-00000006" / "model.safetensors", tmp_path / "model.safetensors")
    manifest = folder / "step-00000006" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"]["../../model.safetensors"] = content["files"].pop("model.safetensors")
    content.pop("sha256")
    write_json(manifest, content | {"sha256": checkpoint._digest(content)})
    with pytest.raises(UserError, match="is no file of a checkpoint"):
        load_latest(folder)


class Spoils:
    """Makes the weights of some steps infinite."""

    def __init__(self, *steps):
        self.steps, self.done = steps, 0

    @hookimpl
    def observe_step(self, done, total):
        self.done = done

    @hookimpl(wrapper=True)
    def generate_weights(self, step):
        weights = yield
        return torch.inf * weights if self.done + 1 in self.steps else weights


def test_what_is_not_finite_stops_the_run_and_names_what_is_kept(tmp_path):
    with pytest.raises(UserError, match=r"^step 5: the weights .*; no checkpoint of .* is before it"):
        train(options(tmp_path / "first"), observers=[Spoils(5)])
    with pytest.raises(UserError, match=r"^step 5: the weights .*; the checkpoint of step 3, before it, is in "):
        train(options(tmp_path / "second", checkpoint_every="3steps"), observers=[Spoils(5)])
    # what came after the step was not kept
    assert steps_kept(tmp_path / "second") == [3]


def test_the_step_of_a_resumed_run_is_counted_from_the_beginning(interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path / "run")
    with pytest.raises(UserError, match=r"^step 9: the weights became infinite"):
        resume(tmp_path / "run", observers=[Spoils(9)])


@pytest.mark.parametrize("step", [1, 3, 8])
@pytest.mark.parametrize("method", ["erm", "mwnet", "gdw"])
def test_a_skipped_step_changes_nothing(method, step, tmp_path):
    class Carried:
        """Keeps what training carries after each step, generators aside."""

        def __init__(self):
            self.seen, self.state = [], None

        @hookimpl
        def observe_step(self, done, total):
            self.seen.append({n: t.clone() for n, t in self.state().items() if "generator" not in n})

    from reweight_core.training import loop

    carried, make = Carried(), loop.TrainingState

    def watched(parts):
        state = make(parts)
        carried.state = state.state_dict
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "TrainingState", watched)
        config = options(tmp_path / "run", method=method, on_nonfinite="skip", lookahead="jvp", epochs=2)
        with pytest.warns(UserWarning, match=rf"step {step}: the weights .*; such steps are skipped"):
            run = train(config, observers=[Spoils(step), carried]).folder
    after, before = carried.seen[step - 1], carried.seen[step - 2] if step > 1 else None
    for name, tensor in after.items():
        if name == "step.sums.skipped_steps":
            assert tensor == 1
        elif before is None:
            assert torch.isfinite(tensor.double()).all(), name
        elif step != STEPS_AN_EPOCH + 1:
            assert torch.equal(tensor, before[name]), name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["skipped_steps"] for line in lines) == 1
    assert all(np.isfinite(line["train_loss"]) for line in lines)
    samples = load_file(run / "samples.safetensors")
    assert torch.isfinite(samples["mean_weight"]).all()
    # the examples of the skipped step were visited once less
    assert sorted(samples["visits"].unique().tolist()) == [1, 2]


def test_a_run_all_of_whose_steps_are_skipped_is_ended(tmp_path):
    with pytest.raises(UserError, match="every step of epoch 1 was skipped"):
        train(options(tmp_path / "run", on_nonfinite="skip"), observers=[Spoils(*range(100))])


def test_skipping_changes_no_healthy_run(whole, tmp_path):
    run = train(options(tmp_path / "run", on_nonfinite="skip")).folder
    assert all(torch.equal(tensor, model_of(whole)[name]) for name, tensor in model_of(run).items())
