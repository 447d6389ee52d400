"""Several processes, connected by gloo, against one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import attrs
import pytest
import torch

from reweight_core import UserError, configure
from reweight_core.config.compatibility import records_of, refuse_in_several_processes
from reweight_core.plugins import registry

# where --model finds the networks, too
sys.path.append(str(Path(__file__).parent))
runs = import_module("runs_in_processes")

EXACT = 1e-12
"""Largest difference, as a share of a tensor's largest entry, or of 1 where that is more."""


def in_processes(size, folder):
    """Train all runs in processes; return what each found."""
    command = [sys.executable, "-W", "ignore", runs.__file__, str(size), folder]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240, check=True)
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return in_processes(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return in_processes(4, tmp_path_factory.mktemp("four"))


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def assert_same(found, name, one):
    for each in found:
        state, history = each[name]
        assert state.keys() == one[0].keys()
        for tensor, expected in one[0].items():
            scale = max(1, expected.double().abs().max().item()) if expected.numel() else 1
            torch.testing.assert_close(state[tensor], expected, rtol=0, atol=EXACT * scale, equal_nan=True, msg=tensor)
        for metrics, expected in zip(history, one[1], strict=True):
            for figure, value in expected.items():
                # ranks of weights that are equal but for rounding
                if isinstance(value, float) and figure not in ("seconds", "seconds_per_step", "noise_auroc"):
                    assert metrics[figure] == pytest.approx(value, rel=1e-6, nan_ok=True), figure


def test_every_method_loss_and_component_is_compared():
    compared = {*runs.RUNS, "cross-entropy"}
    for options in runs.RUNS.values():
        compared |= {options.get("method"), options.get("loss"), *options.get("with", ())}
    for kind in ("method", "loss", "component"):
        assert set(registry.names(kind)) <= compared


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.RUNS)
def test_two_processes_are_one(two, name):
    assert_same(two, name, runs.trained(runs.PLAIN, runs.RUNS[name]))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.FEW)
def test_four_processes_are_one(four, name):
    assert_same(four, name, runs.trained(runs.PLAIN, runs.RUNS[name]))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.SYNCHRONISED)
def test_with_synchronised_batch_norm_processes_are_one(two, four, name):
    one = runs.trained(runs.NORMALISED, runs.SYNCHRONISED[name])
    assert_same(two, f"synchronised {name}", one)
    if name in runs.FEW:
        assert_same(four, f"synchronised {name}", one)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", runs.SYNCHRONISED)
def test_with_batch_norm_by_process_they_are_one_that_takes_micro_batches(two, name):
    one = runs.trained("runs_in_processes:in_micro_batches", runs.SYNCHRONISED[name])
    assert_same(two, f"by process {name}", one)


DIGITS = ("train", "--method", "l2rw", "--model", "mlp", "--meta-size", "100", "--lookahead", "jvp", "--quiet")


def program(*arguments):
    """Start the program by itself."""
    command = [sys.executable, "-m", "reweight_core", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in listed if "reweight_core" in Path(f"/proc/{child}/cmdline").read_text()]


def test_a_process_that_dies_ends_the_run_in_one_line_and_it_is_resumed_exactly(tmp_path, reweight):
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = (*DIGITS, "--epochs", 4, "--checkpoint-every", "1epochs", "--processes", 2)
    uninterrupted = program(*options, "--out", whole)
    assert uninterrupted.wait(timeout=100) == 0

    killed = program(*options, "--out", run)
    while not list(run.glob("checkpoints/step-*")):
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(children(killed)[-1], signal.SIGKILL)
    out, err = killed.communicate(timeout=60)
    assert (killed.returncode, out) == (2, "")
    assert "by SIGKILL; reweight resume RUN goes on from the last checkpoint" in err
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
    resumed = program("resume", run, "--quiet")
    assert resumed.wait(timeout=100) == 0
    for file in (
        "samples.safetensors",
        *(f"checkpoints/step-00000056/{part}.safetensors" for part in ("model", "state")),
    ):
        assert (run / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch-size", 3], "--batch-size 3: each of 2 processes needs two examples of every batch"),
        (["--device", "cuda:1"], "--device cuda:1"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_started(reweight, arguments, told):
    found = reweight(*DIGITS, "--processes", 2, *arguments)
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert told in found.err


def test_a_plugin_that_does_not_say_so_is_refused():
    config = configure(method="l2rw", data="digits", processes=2)
    method, loss, components = records_of(config)
    refuse_in_several_processes(config, method, loss, components)
    with pytest.raises(UserError, match="--processes 2: method 'l2rw' does not support several processes yet"):
        refuse_in_several_processes(config, attrs.evolve(method, several_processes=False), loss, components)
