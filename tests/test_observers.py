"""Observers of an installed package: they hear of a run, change nothing, and the run does not depend on them."""

import json
import shutil
import sys

import pytest

from reweight_core import UserError, configure, resume, train
from reweight_core.cli.main import main
from reweight_core.runs.evaluate import evaluate
from reweight_core.runs.predict import load

MODULE = """
import json

import attrs

from reweight_core import ObserverPlugin, hookimpl, option


@attrs.frozen
class Options:
    every: int = option(1, "Epochs between lines.")


class Diary:
    def __init__(self, config):
        self.every = config.every

    def write(self, *entry):
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\\n")

    @hookimpl
    def begin_run(self, folder, config, epochs_done):
        self.path = folder / "diary.jsonl"
        self.write("begin", config["method"], config["diary_every"], epochs_done)

    @hookimpl
    def observe_epoch(self, metrics):
        if metrics["epoch"] % self.every == 0:
            self.write("epoch", metrics["epoch"])
        metrics["test_accuracy"] = None

    @hookimpl
    def finish_run(self, summary):
        self.write("finish", (self.path.parent / "summary.json").exists(), summary["epochs"])


plugin = ObserverPlugin("diary", "writes what it hears", Diary, Options)
"""

OPTIONS = {"data": "digits", "meta_size": 0, "model": "mlp", "epochs": 3, "checkpoint_every": 1, "batch_size": 500}


@pytest.fixture
def diary(tmp_path, monkeypatch):
    """Install the observer; call it to uninstall it."""
    site = tmp_path / "site"
    info = site / "diary_observer-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "diary_observer.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: diary-observer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reweight.observers]\ndiary = diary_observer:plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    yield lambda: shutil.rmtree(site)
    sys.modules.pop("diary_observer", None)


def entries(folder):
    return [json.loads(line) for line in (folder / "diary.jsonl").read_text().splitlines()]


def results(folder):
    """What a run leaves, without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("seconds")} for line in lines]


def test_it_hears_of_the_whole_run_and_changes_nothing(diary, tmp_path):
    seen = train(configure(**OPTIONS, observe=["diary"], diary_every=2, out=tmp_path / "seen"))
    unseen = train(configure(**OPTIONS, out=tmp_path / "unseen"))
    assert entries(seen.folder) == [["begin", "erm", 2, 0], ["epoch", 2], ["finish", True, 3]]
    assert results(seen.folder) == results(unseen.folder)
    assert seen.summary["test_accuracy"] == unseen.summary["test_accuracy"] > 0


@pytest.fixture
def interrupted(diary, tmp_path):
    """A run with the observer that was interrupted in its last epoch."""
    from reweight_core import hookimpl

    class Stop:
        @hookimpl
        def observe_epoch(self, metrics):
            if metrics["epoch"] == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configure(**OPTIONS, observe=["diary"], out=tmp_path / "run"), observers=[Stop()])
    return tmp_path / "run"


def test_on_a_resume_it_is_told_how_many_epochs_count(interrupted):
    resume(interrupted)
    assert entries(interrupted)[-3:] == [["begin", "erm", 1, 2], ["epoch", 3], ["finish", True, 3]]


def test_a_run_whose_observer_is_gone_goes_on_is_tested_and_predicts(diary, interrupted, tmp_path, recwarn):
    diary()
    evaluate(interrupted)
    load(interrupted)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"run: observers .* \(diary\); it goes on without them"):
        resumed = resume(interrupted)
    unseen = train(configure(**OPTIONS, out=tmp_path / "unseen"))
    assert results(resumed.folder) == results(unseen.folder)
    assert json.loads((interrupted / "config.json").read_text())["options"]["observe"] == ["diary"]


def test_a_run_whose_observer_is_broken_now_is_tested_all_the_same(diary, interrupted, tmp_path):
    sys.modules.pop("diary_observer")
    (tmp_path / "site" / "diary_observer.py").write_text("import not_there")
    assert evaluate(interrupted)["epoch"] == 2


def test_it_is_an_option_of_the_program_and_listed(diary, capsys, tmp_path):
    options = ["--diary-every", "3", "--epochs", "3", "--model", "mlp", "--out", str(tmp_path / "run")]
    assert run("train", "--observe", "diary", *options) == 0
    assert entries(tmp_path / "run")[1] == ["epoch", 3]
    capsys.readouterr()
    assert run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["observer"] == {"diary": "writes what it hears"}
    assert run("train", "--observe", "dairy") == 2
    assert "did you mean 'diary'" in capsys.readouterr().err
    assert run("train", "--diary-every", "3") == 2
    assert "--diary-every is an option of --observe diary, which this run does not use" in capsys.readouterr().err


def run(*arguments):
    try:
        main(list(arguments))
    except SystemExit as finished:
        return finished.code or 0
    return 0


def test_one_that_could_change_the_run_is_refused_before_training(diary, tmp_path):
    (tmp_path / "site" / "diary_observer.py").write_text(
        MODULE.replace("observe_epoch", "finish_epoch").replace("metrics", "epoch")
    )
    with pytest.raises(UserError, match=r"^observer 'diary': implements finish_epoch; an observer hears"):
        train(configure(**OPTIONS, observe=["diary"], out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
