import csv
import json
import statistics
import warnings
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_core import UserError
from reweight_experiments.cells import Cell
from reweight_experiments.claims import Outcome
from reweight_experiments.report import Report, Results, RunResult, Spread, collect, environments, keep, logged_warnings
from reweight_experiments.sweep import sweep_report

accuracies = st.floats(0, 1)


@given(st.lists(accuracies, min_size=2, max_size=20))
def test_mean_and_deviation_are_those_of_other_libraries(values):
    spread = Spread.of(values)
    assert spread.n == len(values)
    assert spread.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert spread.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert spread.deviation == statistics.stdev(values)


@given(accuracies)
def test_one_value_has_no_deviation(value):
    assert Spread.of([value]) == Spread(1, value, None)
    assert "±" not in Spread.of([value]).text(3)


def test_unknown_values_are_left_out():
    assert Spread.of([None, 0.5, None, 0.7]) == Spread.of([0.5, 0.7])
    assert Spread.of([None]) == Spread.of([]) == Spread(0, None, None)
    assert Spread.of([]).text(2) == "-"
    assert Spread.of([0.5, 0.7]).text(2) == "0.60 ± 0.14"


def planned(cell, seed, folder):
    config = SimpleNamespace(seed=seed)
    return SimpleNamespace(
        cell=cell, name=f"{cell.name}/seed-{seed}", folder=folder, config=config, arguments=["train"]
    )


@pytest.fixture
def cells(tmp_path):
    """Two cells: one with two finished runs and a failed one, one with failed runs only."""

    def run(cell, seed, accuracy, *problems):
        """A test set of equally many examples of each class has one accuracy."""
        folder = tmp_path / cell.name / f"seed-{seed}"
        if accuracy is not None:
            folder.mkdir(parents=True)
            accuracies = ("test_accuracy", "test_accuracy_mean5", "test_balanced_accuracy")
            figures = dict.fromkeys(accuracies, accuracy) | {"noise_auroc": None, "seconds": 2.0}
            figures["health"] = [{"problem": name, "epoch": 3, "message": "look"} for name in problems]
            (folder / "summary.json").write_text(json.dumps(figures))
            versions = {"reweight-core": "1", "torch": "2", "python": "3"}
            (folder / "config.json").write_text(json.dumps({"device": "A100", "versions": versions}))
        return planned(cell, seed, folder)

    good = Cell("a", {"method": "a", "noise": "x|y"}, {})
    bad = Cell("b", {"method": "b", "lr": "1"}, {})
    runs = [
        run(good, 0, 0.5, "few examples"),
        run(good, 1, 0.7, "few examples", "chance"),
        run(good, 2, None),
        run(bad, 0, None),
        run(bad, 1, None),
    ]
    return collect(runs, Outcome({"a/seed-2": "too hot", "b/seed-0": "no file", "b/seed-1": "no file"}, []))


def test_figures_are_those_of_the_finished_runs(cells):
    good, bad = cells
    assert (good.finished, bad.finished) == (2, 0)
    assert good.spreads["test_accuracy"] == Spread.of([0.5, 0.7])
    assert good.spreads["noise_auroc"] == Spread(0, None, None)
    assert [one.run.config.seed for one in good.runs] == [0, 1, 2]
    assert [one.error for one in good.runs] == [None, None, "too hot"]


def test_a_run_is_kept_with_its_figures_or_its_error(tmp_path):
    run = planned(Cell("a", {}, {}), 3, tmp_path)
    about = {"seed": 3, "folder": str(tmp_path), "command": ["reweight", "train"]}
    assert RunResult(run, {"seconds": 2.0}).as_json() == about | {"seconds": 2.0, "health": []}
    assert RunResult(run, {}, health=["chance"]).as_json() == about | {"health": ["chance"]}
    assert RunResult(run, {}, "too hot").as_json() == about | {"error": "too hot"}


def test_errors_are_those_of_all_cells(cells, tmp_path):
    errors = Results(tmp_path, cells, sweep_report(cells)).errors
    assert errors == {"a/seed-2": "too hot", "b/seed-0": "no file", "b/seed-1": "no file"}


def test_a_finished_run_without_a_result_is_an_error(tmp_path):
    run = planned(Cell("a", {}, {}), 0, tmp_path)
    with pytest.raises(UserError, match=r"summary\.json: cannot be read"):
        collect([run], Outcome({}, []))
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"summary\.json: has no 'test_accuracy'"):
        collect([run], Outcome({}, []))


def test_the_balanced_accuracy_is_shown_where_it_is_another_one(cells):
    assert "balanced accuracy" not in sweep_report(cells).columns
    near = attrs.evolve(cells[0], spreads=cells[0].spreads | {"test_balanced_accuracy": Spread.of([0.505, 0.699])})
    assert "balanced accuracy" not in sweep_report([near, cells[1]]).columns
    spreads = cells[0].spreads | {"test_balanced_accuracy": Spread.of([0.3, 0.4])}
    report = sweep_report([attrs.evolve(cells[0], spreads=spreads), cells[1]])
    place = report.columns.index("balanced accuracy")
    assert [row[place] for row in report.rows] == ["0.3500 ± 0.0707", "-"]
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert cells[0].csv_row()["test_balanced_accuracy_mean"] == pytest.approx(0.6)


def test_all_files_say_the_same(cells, tmp_path):
    results = keep(tmp_path, sweep_report(cells), cells, {"command": "reweight sweep"})
    text = (tmp_path / "results.md").read_text()
    assert text == results.report.markdown()
    assert "| a | x\\|y | - | 2 | 0.6000 ± 0.1414 | 0.6000 ± 0.1414 | - | 2.0 ± 0.0 |" in text
    assert "| b | - | 1 | 0 | - | - | - | - |" in text
    assert text.split("\n\n")[2:] == [
        "failed: a/seed-2: too hot",
        "failed: b/seed-0, b/seed-1: no file",
        "few examples: a/seed-0, a/seed-1 (health in summary.json)",
        "chance: a/seed-1 (health in summary.json)",
        "2 runs with reweight-core 1, torch 2 and Python 3 on A100.\n",
    ]
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["n"], row["test_accuracy_mean"]) for row in rows] == [("a", "2", "0.6"), ("b", "0", "")]
    assert float(rows[0]["test_accuracy_sd"]) == pytest.approx(np.std([0.5, 0.7], ddof=1))
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(content) == ["command", "made_with", "cells"]
    good, bad = content["cells"]
    assert good["test_accuracy"] == {"mean": 0.6, "sd": float(rows[0]["test_accuracy_sd"])}
    assert [run.get("test_accuracy") for run in good["runs"]] == [0.5, 0.7, None]
    assert [run.get("health") for run in good["runs"]] == [["few examples"], ["few examples", "chance"], None]
    assert bad["test_accuracy"] == {"mean": None, "sd": None}
    assert not list(tmp_path.glob("*.partial"))


def test_runs_of_other_versions_or_machines_are_told_apart(cells, tmp_path):
    file = tmp_path / "a" / "seed-1" / "config.json"
    assert [entry["runs"] for entry in environments(cells)] == [2]
    file.write_text(file.read_text().replace("A100", "cpu"))
    assert [entry["runs"] for entry in environments(cells)] == [1, 1]
    file.write_text("{}")
    with pytest.raises(UserError, match=r"seed-1/config\.json: not that of a run"):
        environments(cells)


def test_a_report_is_markdown():
    report = Report(["head"], ["a", "b"], [["1", "2"]], ["foot"], [])
    assert report.markdown() == "head\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nfoot\n"


def test_warnings_in_the_logs_of_runs_are_in_the_table(cells, tmp_path):
    for seed in (0, 1):
        (tmp_path / "a" / f"seed-{seed}.log").write_text("Warning: too short\nepoch 1\nWarning: too short\n")
    assert logged_warnings(cells) == ["warned: a/seed-0, a/seed-1: too short"]
    keep(tmp_path, sweep_report(cells), cells, {})
    assert "warned: a/seed-0, a/seed-1: too short" in (tmp_path / "results.md").read_text()


def test_cells_that_a_new_table_lacks_are_told(cells, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep(tmp_path, sweep_report(cells), cells, {})
        keep(tmp_path, sweep_report(cells), cells, {})
    with pytest.warns(UserWarning, match="the new table has no b, which the one before had"):
        keep(tmp_path, sweep_report(cells[:1]), cells[:1], {})
