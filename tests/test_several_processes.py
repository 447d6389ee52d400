"""Several processes against one: connected by gloo, or in turns where only what they compute matters."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import attrs
import pytest
import torch

from reweight_core import UserError, configure, hookimpl
from reweight_core.config.compatibility import records_of, refuse_in_several_processes
from reweight_core.errors import DivergedError
from reweight_core.plugins import registry
from reweight_core.runs import folder as run_folder
from reweight_core.testing import tiny_parts
from reweight_core.testing.in_turns import InTurns
from reweight_core.training import preflight
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import train_parts

# where --model finds the networks, too
sys.path.append(str(Path(__file__).parent))
runs = import_module("runs_in_processes")

EXACT = 1e-12
"""Largest difference, as a share of a tensor's largest entry, or of 1 where that is more."""


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    """A folder in which a few runs were trained in two and in four processes, and a run of the program in two."""
    folder = tmp_path_factory.mktemp("connected")
    command = [sys.executable, "-W", "ignore", runs.__file__, folder]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240, check=True)
    return folder


@pytest.fixture(scope="module")
def by_gloo(connected):
    """What each of the processes found, by their number."""
    return {size: [torch.load(connected / f"{rank}-of-{size}.pt") for rank in range(size)] for size in (2, 4)}


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def assert_same(found, one, bound=EXACT):
    for state, history in found:
        assert runs.difference(state, one[0]) <= bound
        for metrics, expected in zip(history, one[1], strict=True):
            for figure, value in expected.items():
                # ranks of weights that are equal but for rounding
                if isinstance(value, float) and figure not in ("seconds", "seconds_per_step", "noise_auroc"):
                    assert metrics[figure] == pytest.approx(value, rel=1e-6, nan_ok=True), figure


def assert_found(by_gloo, name, one):
    sizes = [size for size, found in by_gloo.items() if name in found[0]]
    assert 2 in sizes
    for size in sizes:
        assert_same([found[name] for found in by_gloo[size]], one)


def in_turns(model, options):
    return InTurns(4).run(lambda together: runs.trained(model, options, together))


def test_every_method_loss_and_component_is_compared():
    compared = {*runs.RUNS, "cross-entropy"}
    for options in runs.RUNS.values():
        compared |= {options.get("method"), options.get("loss"), *options.get("with", ())}
    for kind in ("method", "loss", "component"):
        assert set(registry.names(kind)) <= compared


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.RUNS)
def test_four_processes_are_one(name):
    assert_same(in_turns(runs.PLAIN, runs.RUNS[name]), runs.trained(runs.PLAIN, runs.RUNS[name]))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.CONNECTED)
def test_processes_that_gloo_connects_are_one(by_gloo, name):
    assert_found(by_gloo, name, runs.trained(runs.PLAIN, runs.RUNS[name]))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.SYNCHRONISED)
def test_with_synchronised_batch_norm_processes_are_one(by_gloo, name):
    # not in turns: threads would share the level of forward-mode differentiation
    assert_found(by_gloo, f"synchronised {name}", runs.trained(runs.NORMALISED, runs.SYNCHRONISED[name]))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.SYNCHRONISED)
def test_with_batch_norm_by_process_they_are_one_that_takes_micro_batches(name):
    options = runs.SYNCHRONISED[name]
    assert_same(in_turns(runs.NORMALISED, options), runs.trained(runs.BY_PROCESS[4], options))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["l2rw", "gdw"])
def test_so_are_two_that_gloo_connects(by_gloo, name):
    assert_found(by_gloo, f"by process {name}", runs.trained(runs.BY_PROCESS[2], runs.SYNCHRONISED[name]))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("length", [3e-4, 3e-2])
def test_finite_differences_agree_as_far_as_the_distance_that_they_divide_by_allows(monkeypatch, length):
    # what rounding makes of the logits is divided by it
    monkeypatch.setattr(preflight, "FD_LENGTH", length)
    options = {"method": "l2rw", "lookahead": "fd"}
    assert_same(in_turns(runs.PLAIN, options), runs.trained(runs.PLAIN, options), bound=3e-15 / length)


DIGITS = [text for name, value in runs.DIGITS.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def program(*arguments, **how):
    """Start the program by itself."""
    command = [sys.executable, "-m", "reweight_core", *map(str, arguments), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in listed if "reweight_core" in Path(f"/proc/{child}/cmdline").read_text()]


def test_a_process_that_dies_ends_the_run_in_one_line_and_it_is_resumed_exactly(tmp_path, reweight, connected):
    run = tmp_path / "run"
    killed = program("train", *DIGITS, "--processes", 2, "--out", run)
    while not list(run.glob("checkpoints/step-*")):
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(children(killed)[-1], signal.SIGKILL)
    out, err = killed.communicate(timeout=60)
    assert (killed.returncode, out) == (2, "")
    assert "process 1 of the run was ended by SIGKILL; reweight resume RUN goes on from the last checkpoint" in err
    assert err.count("\n") == 1

    refused = reweight("resume", run, "--processes", 1)
    assert refused.status == 2
    assert "was trained in 2 processes, not in 1: give --processes 2, or --allow-changes" in refused.err
    other = tmp_path / "other"
    shutil.copytree(run, other)
    allowed = reweight("resume", other, "--processes", 1, "--allow-changes", "--quiet")
    assert allowed.status == 0
    config = json.loads((other / "config.json").read_text())
    assert config["options"]["processes"] == 1
    assert config["changes"][0]["changed"] == ["processes: 2, now 1"]
    resumed = program("resume", run)
    assert resumed.wait(timeout=100) == 0
    last = "checkpoints/step-00000042"
    for file in ("samples.safetensors", f"{last}/model.safetensors", f"{last}/state.safetensors"):
        assert (run / file).read_bytes() == (connected / "whole" / file).read_bytes()


def test_a_full_disk_ends_all_processes_in_one_line_and_nothing_is_left(tmp_path):
    before = set(Path(tempfile.gettempdir()).glob("torch*"))
    options = ["--data", "digits", "--model", "mlp", "--checkpoint-every", "1epochs", "--out", tmp_path / "run"]
    small = (100_000, 100_000)
    filled = program(
        "train", *options, "--processes", 2, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, small)
    )
    while len(found := children(filled)) < 2 and filled.poll() is None:
        time.sleep(0.02)
    out, err = filled.communicate(timeout=100)
    assert (filled.returncode, out, err.count("\n")) == (2, "", 1)
    assert "File too large" in err
    assert not any(Path(f"/proc/{child}").exists() for child in found)
    assert set(Path(tempfile.gettempdir()).glob("torch*")) == before


class Uphill:
    """Makes every step one up the loss, in place of down."""

    @hookimpl(wrapper=True)
    def generate_weights(self, step):
        return -(yield)


def test_the_others_wait_while_process_0_saves_and_tells_that_the_run_has_diverged(tmp_path, monkeypatch):
    events = []

    class Observer:
        @hookimpl
        def end_run(self, error):
            events.append("0 tells")

    def run(together):
        broadcast = together.group.broadcast

        def noted(value):
            events.append(f"{together.rank} waits")
            return broadcast(value)

        together.group.broadcast = noted
        observers = [Uphill(), *[Observer()] * together.is_first]
        options = {"lr": 3.0, "max_grad_norm": 1.0, "schedule": "constant", "epochs": 20}
        parts = tiny_parts("erm", observers, "mlp", together=together, **options)
        with pytest.raises(DivergedError):
            train_parts(parts, HeldOut.of(parts.config, parts.data, parts.device), tmp_path)
        events.append(f"{together.rank} ends")

    monkeypatch.setattr(run_folder, "write_config", lambda *_: None)
    monkeypatch.setattr("reweight_core.training.saving.checkpoint.save", lambda *_: events.append("0 saves"))
    InTurns(2).run(run)
    after = events[len(events) - events[::-1].index("0 saves") :]
    assert after == [*["0 waits", "1 waits"], "0 tells", *["0 waits", "1 waits"], "0 ends", "1 ends"]


@pytest.mark.parametrize("rank", [0, 1])
def test_other_commands_are_refused_in_several_processes(reweight, monkeypatch, rank):
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "it")
    refused = reweight("sweep", "--methods", "erm", "--out", "s")
    assert refused.status == 2
    assert refused.err == (
        "Error: torchrun: only reweight train and resume run in several processes\n" if rank == 0 else ""
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch-size", 3], "--batch-size 3: each of 2 processes needs two examples of every batch"),
        (["--device", "cuda:1"], "--device cuda:1"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_started(reweight, arguments, told):
    found = reweight("train", *DIGITS, "--processes", 2, *arguments)
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert told in found.err


def test_a_plugin_that_does_not_say_so_is_refused():
    config = configure(method="l2rw", data="digits", processes=2)
    method, loss, components = records_of(config)
    refuse_in_several_processes(config, method, loss, components)
    with pytest.raises(UserError, match="--processes 2: method 'l2rw' does not support several processes yet"):
        refuse_in_several_processes(config, attrs.evolve(method, several_processes=False), loss, components)
