"""Plugins of the tests' own in the place of what is installed, and runs that take no time."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import attrs
import pytest

from reweight_core import (
    ComponentPlugin,
    DataPlugin,
    MethodPlugin,
    NoisePlugin,
    TablePlugin,
    UserError,
    as_values,
    option,
    registry,
)
from reweight_core.cli.main import main
from reweight_core.plugins.records import LossPlugin
from reweight_experiments import carry_out, jobs, plugin

TABLE = """
figure = "test_accuracy"
deviation = "standard deviation"
notes = ["of all"]

[options]
epochs = 7
weight-decay = 0.5

[[cells]]
name = "erm-small"
method = "erm"
mean = 80.0
deviation = 0.5

[[cells]]
name = "erm-large"
method = "erm"
mean = 90.0
options = { epochs = 9, data = "tail" }
notes = ["of one"]

[[cells]]
name = "erm-unknown"
method = "erm"
"""


@attrs.frozen
class StirOptions:
    """Options of the method `stir`."""

    speed: float = option(1.0, "Turns a second.", check=attrs.validators.gt(0))
    whisk: Literal["wire", "wooden"] = option("wire", "Which whisk.")
    gently: bool = option(False, "Whether to take care.")
    pauses: str | None = option(None, "When to rest, e.g. 2,5.", comma_list=True)


@attrs.frozen
class ShakeOptions:
    """Options of the method `shake`."""

    speed: float = option(5.0, "Times a second.", changes_result=False)
    whisk: Literal["none", "wire"] = option("none", "Which whisk.")


@attrs.frozen
class SpiceOptions:
    """Options of the component `spice`."""

    amount: float = option(0.5, "How much.")


@attrs.frozen
class DentOptions:
    """Options of the loss `dent`."""

    depth: float = option(0.1, "How deep.")


@attrs.frozen
class ShelfOptions:
    """Options of the dataset `tail`."""

    shelf: Path = option(Path("shelf"), "Where it is.", changes_result=False)
    cut: int = option(1, "How short.")


def never_built(*arguments):
    raise AssertionError("a plan must not build anything")


@pytest.fixture(scope="module")
def plugins():
    """Put records of the tests' own in the place of what is installed; give them by kind and name."""
    records = {
        "method": {
            "erm": MethodPlugin("erm", "plain", never_built),
            "stir": MethodPlugin("stir", "stirs", never_built, StirOptions, one_label=True),
            "shake": MethodPlugin("shake", "shakes", never_built, ShakeOptions, needs_meta_set=True),
        },
        "component": {
            "spice": ComponentPlugin("spice", "adds", never_built, SpiceOptions),
            "blend": ComponentPlugin("blend", "mixes", never_built, mixes_targets=True),
        },
        "data": {
            "digits": DataPlugin("digits", "small", never_built),
            "tail": DataPlugin("tail", "long", never_built, ShelfOptions, defaults={"imb": 0.1}),
            "march": DataPlugin("march", "steady", never_built, defaults={"steps": 500}),
        },
        "loss": {
            "cross-entropy": LossPlugin("cross-entropy", "usual", never_built, one_label=False),
            "dent": LossPlugin("dent", "bent", never_built, DentOptions),
        },
        "observer": {},
        "noise": {"blur": NoisePlugin("blur", "blur:X", lambda argument: argument)},
        "model": {},
        "table": {},
        "command": {"sweep": plugin.sweep, "reproduce": plugin.reproduce, "compare": plugin.compare},
    }

    def find(kind, name):
        if name not in records[kind]:
            raise UserError(f"no {kind} is called '{name}'")
        return records[kind][name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "find", find)
        patch.setattr(registry, "names", lambda kind: sorted(records[kind]))
        yield records


@pytest.fixture
def table(plugins, tmp_path, monkeypatch):
    """Write the published table `mine` and install it; give its record."""

    def make(text=TABLE):
        path = tmp_path / "table.toml"
        path.write_text(text)
        record = TablePlugin("mine", "my table", "I, 2020, table 1", path)
        monkeypatch.setitem(plugins["table"], "mine", record)
        return record

    return make


@pytest.fixture
def made(plugins, monkeypatch):
    """Let runs, all but those in `broken`, succeed at once with an accuracy of (70 + seed) %; tell which were made."""
    told = SimpleNamespace(names=[], jobs=[], environments=[], at_once=[], broken={})
    runs = {}

    def arguments_for(run, real=carry_out.arguments_for):
        runs[run.name] = run
        return real(run)

    class Processes:
        running = ()

        def __init__(self, at_once):
            told.at_once.append(at_once)
            self.made = []

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            """Nothing runs."""

        def start(self, job):
            run = runs[job.name]
            told.names.append(job.name)
            told.jobs.append(job)
            told.environments.append(job.environment)
            error = told.broken.get(job.name)
            if error is None:
                run.folder.mkdir(parents=True)
                config = {
                    "options": as_values(run.config),
                    "device": "A100",
                    "versions": {"reweight-core": "1", "torch": "2", "python": "3"},
                }
                (run.folder / "config.json").write_text(json.dumps(config))
                accuracy = (70 + run.config.seed) / 100
                figures = {"test_accuracy": accuracy, "test_accuracy_mean5": accuracy - 0.1}
                figures |= {"test_balanced_accuracy": accuracy, "noise_auroc": None, "seconds": 2.0, "health": []}
                (run.folder / "summary.json").write_text(json.dumps(figures))
            self.made.append(jobs.Ended(job, 2.0, error))

        def ended(self):
            made, self.made = self.made, []
            return made

    monkeypatch.setattr(carry_out, "arguments_for", arguments_for)
    monkeypatch.setattr(carry_out, "Processes", Processes)
    monkeypatch.setattr(carry_out, "POLL_SECONDS", 0)
    monkeypatch.setattr(carry_out, "load_data", lambda config: SimpleNamespace(meta="some"))
    return told


@pytest.fixture
def reweight(made, capsys, tmp_path, monkeypatch):
    """Run the program in an empty folder; give its exit status, standard output and error."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*arguments):
        capsys.readouterr()
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as finished:
            status = finished.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run
