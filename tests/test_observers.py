"""Observers of an installed package: they hear of a run, change nothing, and the run does not depend on them."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from reweight_core import UserError, configure, hookimpl, resume, train
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

    @hookimpl
    def finish_run(self, summary):
        self.write("finish", (self.path.parent / "summary.json").exists(), summary["epochs"])

    @hookimpl
    def end_run(self, error):
        self.write("end", type(error).__name__)


plugin = ObserverPlugin("diary", "writes what it hears", Diary, Options)
"""

OPTIONS = {
    "data": "digits",
    "meta_size": 0,
    "model": "mlp",
    "epochs": 3,
    "checkpoint_every": "1epochs",
    "batch_size": 500,
}


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
    assert entries(seen.folder) == [["begin", "erm", 2, 0], ["epoch", 2], ["finish", True, 3], ["end", "NoneType"]]
    assert results(seen.folder) == results(unseen.folder)
    assert seen.summary["test_accuracy"] == unseen.summary["test_accuracy"] > 0


@pytest.fixture
def interrupted(diary, tmp_path):
    """A run with the observer that was interrupted in its last epoch."""

    class Stop:
        @hookimpl
        def observe_epoch(self, metrics):
            if metrics["epoch"] == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configure(**OPTIONS, observe=["diary"], out=tmp_path / "run"), observers=[Stop()])
    return tmp_path / "run"


def test_on_a_resume_it_is_told_how_many_epochs_count(interrupted):
    assert entries(interrupted)[-2:] == [["epoch", 2], ["end", "KeyboardInterrupt"]]
    resume(interrupted)
    assert entries(interrupted)[-4:] == [
        ["begin", "erm", 1, 2],
        ["epoch", 3],
        ["finish", True, 3],
        ["end", "NoneType"],
    ]


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
    assert json.loads(capsys.readouterr().out)["observer"]["diary"] == "writes what it hears"
    assert run("train", "--observe", "dairy") == 2
    assert "did you mean 'diary'" in capsys.readouterr().err
    assert run("train", "--diary-every", "3") == 2
    assert "--diary-every is an option of --observe diary, which this run does not use" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["begin_run", "end_run"])
def test_whatever_an_observer_does_others_hear_of_the_end(method, tmp_path):
    heard = []

    class Fails:
        @hookimpl
        def end_run(self, error):
            raise ValueError("bad end")

    class FailsToo:
        @hookimpl
        def begin_run(self):
            if method == "begin_run":
                raise ValueError("bad begin")

    class Hears:
        @hookimpl
        def end_run(self, error):
            heard.append(str(error))

    options = configure(**OPTIONS | {"epochs": 1}, out=tmp_path / "run")
    watchers = [Hears(), Fails(), FailsToo(), Hears()]
    if method == "begin_run":
        with pytest.raises(ValueError, match="bad begin"):
            train(options, observers=watchers)
        assert heard == ["bad begin"] * 2
        # nothing is in the way of a run that begins
        assert train(options).summary["epochs"] == 1
    else:
        with pytest.warns(
            UserWarning, match=r"^Fails \(observer 1\): end_run: ValueError: bad end; the run is finished"
        ):
            assert train(options, observers=watchers).summary["epochs"] == 1
        assert heard == ["None"] * 2


def test_a_place_where_no_log_can_lie_ends_the_run_before_the_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("reweight_core.training.loop.load_data", lambda config: pytest.fail("read the data"))
    (tmp_path / "file").touch()
    options = configure(**OPTIONS, observe=["tensorboard"], tensorboard_log_dir=tmp_path / "file", out=tmp_path / "run")
    with pytest.raises(UserError, match=r"^observer 'tensorboard': --tensorboard-log-dir .*file: .* is no folder"):
        train(options)
    assert not (tmp_path / "run").exists()


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


def test_it_sees_of_every_example_what_the_run_keeps_in_the_end(tmp_path):
    seen = []

    class Watches:
        @hookimpl
        def observe_epoch(self, metrics, samples):
            seen.append(samples)

    options = OPTIONS | {"noise": "uniform:0.4"}
    finished = train(configure(**options, out=tmp_path / "run"), observers=[Watches()])
    kept = load_file(finished.folder / "samples.safetensors")
    assert [set(samples) for samples in seen] == [set(kept)] * 3
    assert all(len(column) == len(kept["id"]) for column in seen[0].values())
    for name, column in kept.items():
        assert np.array_equal(seen[-1][name], column), name
    # of the first epoch, not what became of it
    assert set(seen[-3]["visits"]) == {1}


@pytest.fixture
def needy(diary, tmp_path):
    """The observer as it is where its library is missing."""
    module = tmp_path / "site" / "diary_observer.py"
    sys.modules.pop("diary_observer", None)
    module.write_text(
        MODULE.replace("import json\n", "import json\nfrom reweight_core import UserError\n", 1).replace(
            "self.every = config.every", "raise UserError('--observe diary: pip install paper')"
        )
    )


def test_one_whose_library_is_missing_ends_the_run_before_the_data_are_read(needy, tmp_path, monkeypatch):
    monkeypatch.setattr("reweight_core.training.loop.load_data", lambda config: pytest.fail("read the data"))
    with pytest.raises(UserError, match=r"^--observe diary: pip install paper$"):
        train(configure(**OPTIONS, observe=["diary"], out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_one_whose_library_is_missing_now(interrupted, needy):
    with pytest.warns(UserWarning, match="pip install paper; the run goes on without observer 'diary'"):
        finished = resume(interrupted)
    assert finished.summary["epochs"] == 3
    assert entries(interrupted)[-1] == ["end", "KeyboardInterrupt"]


def test_the_observer_csv_goes_with_data_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{'ab'[i % 2]},{i % 7},{i % 2 + i % 3}" for i in range(60))
    (tmp_path / "train.csv").write_text(f"label,x,y\n{rows}\n")
    (tmp_path / "file.toml").write_text(f'data = "csv"\nobserve = ["csv"]\n[csv]\ndata-root = "{tmp_path}"\n')
    assert run("train", "--config", "file.toml", "--epochs", "2", "--test-from", "split:0.2", "--out", "run") == 0
    with open("run/metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [float(row["train_loss"]) for row in table] == [line["train_loss"] for line in lines]
    assert run("train", "--observe", "csv", "--observe", "csv", "--out", "twice") == 2


def test_a_training_is_in_tensorboard_as_in_its_folder(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finished = train(configure(**OPTIONS | {"noise": "uniform:0.4"}, observe=["tensorboard"], out=tmp_path / "run"))
    log = EventAccumulator(str(finished.folder), size_guidance={"histograms": 0})
    log.Reload()
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "noise_auroc", "mean_weight_clean", "mean_weight_corrupted", "test_accuracy"):
        assert [event.value for event in log.Scalars(name)] == pytest.approx([line[name] for line in lines]), name
    assert [event.step for event in log.Histograms("weights_corrupted")] == [1, 2, 3]
