"""Every installed method, and every component with plain training, through the program from end to end."""

import json
import shutil

import pytest

from reweight_core import RunConfig
from reweight_core.cli.main import main
from reweight_core.config.resolve import known_options
from reweight_core.plugins import registry
from reweight_core.runs.checkpoint import load_latest

PLUGINS = [
    *({"method": name} for name in registry.names("method")),
    *({"method": "erm", "with": [name]} for name in registry.names("component")),
]
INTERRUPTED_ELSEWHERE = {"clean-only", "erm", "fsr", "gdw", "l2rw", "mwnet", "random"}
"""Methods that tests/test_resume.py interrupts."""

# two epochs of three steps
TINY = {
    "data": "digits",
    "noise": "uniform:0.4",
    "steps": 6,
    "batch_size": 500,
    "checkpoint_every": "1epochs",
    "device": "cpu",
}
TINY |= {"meta_size": 20, "meta_batch_size": 20}
OWN = {"dictionary_size": 30, "probe_size": 20, "warmup_epochs": 1, "relabel_warmup_epochs": 1, "first_epochs": 1}
OWN |= {"share": 1.0}
"""Given to the plugins that have such an option, so that a small run is a whole one."""
LONGER = {"glc": (3, 9), "posterior-label": (3, 9), "erm with fine-tune": (3, 7)}
"""Epochs and steps of the plugins that add stages."""


def name_of(plugin):
    return f"erm with {plugin['with'][0]}" if "with" in plugin else plugin["method"]


def run(*arguments):
    """Run the program; fail with its message if it does."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        assert not stopped.code


def train(plugin, folder):
    known = known_options(RunConfig, {"data": "digits", **plugin})
    options = plugin | TINY | {name: value for name, value in OWN.items() if name in known} | {"out": folder}
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if name != "with"]
    flags += [("--with", name) for name in plugin.get("with", [])]
    run("train", *(part for flag in flags for part in flag))


def results(folder):
    """Every file of a run that holds numbers other than times, byte for byte."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    files = [folder / "samples.safetensors", newest / "model.safetensors", newest / "state.safetensors"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if not name.startswith("seconds")} for line in lines]
    return {path.name: path.read_bytes() for path in files} | {"metrics": metrics}


def assert_same_results(one, other):
    found, expected = results(one), results(other)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Give the folder of a plugin's run, made once."""
    root = tmp_path_factory.mktemp("finished")

    def folder(plugin):
        if not (root / name_of(plugin)).exists():
            train(plugin, root / name_of(plugin))
        return root / name_of(plugin)

    return folder


@pytest.mark.parametrize("plugin", PLUGINS, ids=name_of)
def test_the_checkpoint_has_the_accuracy_of_the_summary(plugin, finished, capsys):
    summary = json.loads((finished(plugin) / "summary.json").read_text())
    assert (summary["epochs"], summary["steps"]) == LONGER.get(name_of(plugin), (2, 6))
    capsys.readouterr()
    run("eval", finished(plugin), "--device", "cpu", "--json")
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == summary["test_accuracy"]


@pytest.mark.parametrize("plugin", PLUGINS, ids=name_of)
def test_the_same_seed_gives_the_same_run(plugin, finished, tmp_path):
    train(plugin, tmp_path / "again")
    assert_same_results(tmp_path / "again", finished(plugin))


@pytest.mark.parametrize("plugin", [p for p in PLUGINS if name_of(p) not in INTERRUPTED_ELSEWHERE], ids=name_of)
def test_a_run_stopped_in_its_last_epoch_goes_on_to_the_same_end(plugin, finished, tmp_path):
    # what is on disk then: the checkpoint of the epoch before, no results yet
    folder = tmp_path / "interrupted"
    shutil.copytree(finished(plugin), folder)
    _, newest = sorted((folder / "checkpoints").iterdir())
    shutil.rmtree(newest)
    for name in ("summary.json", "samples.json", "samples.safetensors"):
        (folder / name).unlink()
    epochs, _ = LONGER.get(name_of(plugin), (2, 6))
    assert load_latest(folder / "checkpoints").manifest.epoch == epochs - 1
    run("resume", folder)
    assert_same_results(folder, finished(plugin))
