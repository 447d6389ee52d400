import csv
import json

import pytest

from reweight_core import UserError
from reweight_experiments import reproduce
from reweight_experiments.published import read_table
from reweight_experiments.report import FIGURES, CellResult, RunResult, Spread
from reweight_experiments.reproduction import Comparison, comparison_report


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def compare(table, published, *accuracies):
    runs = [RunResult(None, {}) for _ in accuracies]
    spreads = {name: Spread.of(accuracies) for name in FIGURES}
    return Comparison.of(table, published, CellResult(None, runs, spreads))


def test_a_difference_is_in_points_and_in_published_deviations(table):
    read = read_table(table())
    small, large, unknown = read.cells
    one = compare(read, small, 0.81, 0.82)
    assert (one.mean, one.difference, one.in_deviations) == pytest.approx((81.5, 1.5, 3.0))
    assert one.deviation == pytest.approx(100 * Spread.of([0.81, 0.82]).deviation)
    other = compare(read, large, 0.88)
    assert (other.difference, other.in_deviations, other.deviation) == (pytest.approx(-2.0), None, None)
    assert compare(read, unknown, 0.5).difference is None
    assert compare(read, small).difference is None


def test_the_figure_compared_is_the_tables(table, made):
    text = table().path.read_text()
    (last,) = reproduce("mine", cells="erm-small").cells
    assert last.mean == pytest.approx(70.0)
    table(text.replace("test_accuracy", "test_accuracy_mean5"))
    (mean5,) = reproduce("mine", cells="erm-small").cells
    assert mean5.mean == pytest.approx(60.0)


def test_the_report_states_what_differs_from_the_paper(table):
    read = read_table(table())
    comparisons = [compare(read, cell, 0.81, 0.82) for cell in read.cells]
    report = comparison_report(read, comparisons, {"epochs": 2, "device": "cpu"})
    assert "I, 2020, table 1" in report.heading[0]
    assert report.heading[1] == "With --epochs 2 --device cpu: not the paper's setting."
    assert report.rows[0] == ["erm-small", "80.00 ± 0.50", "2", "81.50 ± 0.71", "+1.50", "+3.0"]
    assert report.rows[1][-1] == "-"
    assert report.remarks == ["of all", "of one (erm-large)"]
    report = comparison_report(read, comparisons, {"device": "cpu", "shelf": "x"})
    assert report.heading[1] == "With --device cpu --shelf x."
    assert len(comparison_report(read, comparisons, {}).heading) == 1


def test_a_figure_that_is_no_target_is_in_brackets_and_not_compared(table, made, tmp_path):
    table(table().path.read_text().replace("mean = 90.0", 'mean = 90.0\ndeviation = 2.0\nno-target = "quoted"'))
    results = reproduce("mine", cells="erm-large")
    (row,) = results.report.rows
    assert row == ["erm-large", "[90.00 ± 2.00]", "1", "70.00", "-", "-"]
    assert "In brackets, no target: quoted (erm-large)" in results.report.remarks
    content = json.loads((tmp_path / "runs/mine/results.json").read_text())
    assert content["cells"][0]["published"] == {"mean": 90.0, "deviation": 2.0, "no_target": "quoted"}
    assert content["cells"][0]["difference"] is None
    with open("runs/mine/results.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["no_target"], line["difference"]) == ("quoted", "")


def test_a_reproduction_runs_the_chosen_cells_and_keeps_the_comparison(table, made, tmp_path):
    table()
    results = reproduce("mine", only="erm", cells="erm-*l*", seeds=2, seed=5, epochs=3, jobs=2)
    assert made.names == [f"{cell}/seed-{seed}" for cell in ("erm-small", "erm-large") for seed in (5, 6)]
    assert results.folder.samefile("runs/mine")
    small = results.cells[0]
    assert (small.finished, small.mean, small.difference) == (2, pytest.approx(75.5), pytest.approx(-4.5))
    content = json.loads((tmp_path / "runs/mine/results.json").read_text())
    assert content["command"] == (
        "reweight reproduce mine --only erm --cells 'erm-*l*' --epochs 3 --seed 5 --seeds 2 --jobs 2 --out runs/mine"
    )
    assert (content["table"], content["overrides"]) == ("mine", {"epochs": 3})
    assert content["cells"][0]["published"] == {"mean": 80.0, "deviation": 0.5, "no_target": None}
    assert content["cells"][0]["difference"] == small.difference
    with open("runs/mine/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cell"], row["published_mean"]) for row in rows] == [("erm-small", "80.0"), ("erm-large", "90.0")]
    assert float(rows[0]["difference"]) == pytest.approx(small.difference)
    text = (tmp_path / "runs/mine/results.md").read_text()
    assert "| erm-small | 80.00 ± 0.50 | 2 | 75.50 ± 0.71 | -4.50 | -9.0 |" in text
    assert "4 runs with reweight-core 1, torch 2 and Python 3 on A100." in text


def test_another_seed_leaves_the_setting_the_papers(table, made):
    table()
    (line,) = reproduce("mine", seed=5).report.heading
    assert "seed 5" not in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "stir"}, "method: each cell of a table has its own; choose cells with only="),
        ({"jobs": 0}, "--jobs 0: must be a whole number, 1 or more"),
        ({"seed": "0"}, "--seed '0': must be a whole number, 0 or more"),
        ({"only": ""}, "--only : holds an empty name"),
    ],
)
def test_a_mistake_is_found_before_anything_is_made(table, made, tmp_path, arguments, message):
    table()
    with pytest.raises(UserError, match=message):
        reproduce("mine", tmp_path / "r", **arguments)
    assert not (tmp_path / "r").exists()


def test_a_table_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match="no table"):
        reproduce("hers")
