"""Runs and sweeps side by side."""

import json
import sys

import numpy as np
import pytest

from reweight_core import UserError, as_values, configure
from reweight_experiments.side_by_side import compare

BARE = {"config.json": '{"options": {}}'}

pytestmark = pytest.mark.usefixtures("plugins")


def kept(folder, accuracies=(0.5, 0.75), finished=True, health=(), device="cpu", auroc=None, **options):
    """Write what a run leaves, and return its folder."""
    folder.mkdir(parents=True)
    config = as_values(configure(**{"method": "erm", "data": "digits", "epochs": 2, "out": folder} | options))
    (folder / "config.json").write_text(json.dumps({"options": config, "device": device}))
    epochs = [
        {"epoch": epoch, "seconds": 2.0, "test_accuracy": accuracy, "val_accuracy": None, "noise_auroc": auroc}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    if finished:
        last = accuracies[-1]
        summary = {"epochs": len(epochs), "test_accuracy": last, "test_balanced_accuracy": last - 0.1, "seconds": 5.0}
        summary |= {"test_macro_f1": last, "noise_auroc": auroc, "health": [{"problem": problem} for problem in health]}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def sweep(folder, accuracies=(0.7, 0.8, 0.9), **options):
    """Write a sweep of two methods; the second is better by 0.05."""
    for place, method in enumerate(("erm", "stir")):
        for seed, accuracy in enumerate(accuracies):
            run = folder / f"{method}-digits" / f"seed-{seed}"
            kept(run, (0.5, accuracy + 0.05 * place), seed=seed, method=method, **options)
    return folder


def cells(report):
    """The rows of a table of few runs: texts by title."""
    return {title: texts for title, *texts in report.rows}


def test_what_differs_is_shown_and_nothing_else(tmp_path):
    found = compare(
        kept(tmp_path / "a", lr=0.1, weight_decay=0.5, workers=1),
        kept(tmp_path / "b", (0.5, 0.25), lr=0.2, weight_decay=0.5, workers=2),
    )
    assert found.options == ["lr"]
    assert found.report().columns == ["", "a", "b"]
    rows = cells(found.report())
    assert rows["lr"] == ["0.1", "0.2"]
    assert rows["test accuracy"] == ["0.7500", "0.2500"]
    assert rows["balanced accuracy"] == ["0.6500", "0.1500"]
    assert rows["epochs trained"] == ["2", "2"]
    # what nobody has is no row
    assert "AUROC of weights" not in rows


def test_an_option_of_one_method_alone_is_shown_where_it_is_not_its_default(tmp_path):
    found = compare(kept(tmp_path / "a"), kept(tmp_path / "b", method="stir", whisk="wooden", speed=1.0))
    assert found.options == ["method", "whisk"]
    assert cells(found.report())["whisk"] == ["-", "wooden"]


def test_a_run_with_a_plugin_that_is_not_installed_is_compared_all_the_same(tmp_path):
    lost = kept(tmp_path / "a", method="stir")
    config = json.loads((lost / "config.json").read_text())
    config["options"] |= {"method": "gone", "observe": ["log-book"], "log_book_place": "there"}
    (lost / "config.json").write_text(json.dumps(config))
    found = compare(lost, kept(tmp_path / "b"))
    assert cells(found.report())["method"] == ["gone", "erm"]
    # what the lost method's options are by default is not known
    assert found.options == ["method", "speed", "whisk", "gently"]


def test_the_seeds_of_a_sweep_are_one_subject_with_mean_and_sample_deviation(tmp_path):
    found = compare(sweep(tmp_path / "sweep"), kept(tmp_path / "alone", seed=7))
    rows = cells(found.report())
    assert found.report().columns == ["", "erm-digits", "stir-digits", "alone"]
    assert rows["n"] == ["3", "3", "1"]
    assert rows["test accuracy"] == ["0.8000 ± 0.1000", "0.8500 ± 0.1000", "0.7500"]
    assert "seed" not in rows
    first, _, alone = found.as_json()
    assert first["test_accuracy"] == {
        "mean": pytest.approx(np.mean([0.7, 0.8, 0.9])),
        "sd": pytest.approx(np.std([0.7, 0.8, 0.9], ddof=1)),
    }
    assert alone["test_accuracy"] == {"mean": 0.75, "sd": None}
    assert first["options"] == {"method": "erm"}


def test_a_cell_of_a_sweep_can_be_named_and_nothing_counts_twice(tmp_path):
    folder = sweep(tmp_path / "sweep")
    found = compare(folder / "stir-digits", folder, folder / "stir-digits")
    assert [one.name for one in found.subjects] == ["stir-digits", "erm-digits"]


def test_single_seeds_of_a_sweep_are_told_by_their_paths_and_seeds(tmp_path):
    folder = sweep(tmp_path / "sweep")
    first, second = folder / "erm-digits" / "seed-1", folder / "stir-digits" / "seed-1"
    assert [one.name for one in compare(first, second).subjects] == [str(first), str(second)]
    assert compare(first, first.with_name("seed-2")).options == ["seed"]


def test_an_unfinished_run_is_shown_with_what_is_known(tmp_path):
    begun = kept(tmp_path / "begun", (0.25,), finished=False, epochs=9)
    with open(begun / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "half a li')
    found = compare(begun, kept(tmp_path / "new", (), finished=False), kept(tmp_path / "whole"))
    report = found.report()
    assert cells(report)["test accuracy"] == ["0.2500", "-", "0.7500"]
    assert cells(report)["seconds"] == ["2.0", "0.0", "5.0"]
    assert report.remarks == [
        "begun: unfinished; the figures are those of epoch 1 of 9",
        "new: unfinished, before its first epoch",
    ]
    assert [(one["n"], one["unfinished"]) for one in found.as_json()] == [(0, 1), (0, 1), (1, 0)]


def test_of_a_sweep_that_is_not_finished_the_finished_runs_count(tmp_path):
    folder = sweep(tmp_path / "sweep")
    (folder / "erm-digits" / "seed-2" / "summary.json").unlink()
    report = compare(folder).report()
    assert cells(report)["n"] == ["2", "3"]
    assert cells(report)["test accuracy"][0] == "0.7500 ± 0.0707"
    assert report.remarks == ["erm-digits: 1 of 3 runs unfinished"]


def test_failed_and_missing_runs_of_a_sweep_are_called_so(tmp_path):
    folder = sweep(tmp_path / "sweep")
    for seed in (1, 2):
        (folder / "erm-digits" / f"seed-{seed}" / "summary.json").unlink()
    runs = [{"seed": seed} | ({"error": "diverged (see its log)"} if seed in (0, 1, 3) else {}) for seed in range(4)]
    lost = {"name": "gone-digits", "runs": [{"seed": 0, "error": "no such data"}]}
    (folder / "results.json").write_text(json.dumps({"cells": [{"name": "erm-digits", "runs": runs}, lost]}))
    (folder / "stir-digits" / "seed-3.log").touch()
    found = compare(folder)
    assert found.report().remarks == [
        "erm-digits: 1 of 4 runs failed, 1 of 4 runs unfinished, 1 of 4 runs missing",
        "erm-digits: seed-1 failed: diverged (see its log)",
        "gone-digits: missing",
        "stir-digits: 1 of 4 runs missing",
    ]
    # one that was made again since then is finished
    assert cells(found.report())["n"] == ["1", "0", "3"]
    told = {one["name"]: (one["n"], one["unfinished"], one["failed"], one["missing"]) for one in found.as_json()}
    assert told["erm-digits"] == (1, 1, {"seed-1": "diverged (see its log)"}, 1)
    assert told["gone-digits"] == (0, 0, {}, 1)
    cell, single = folder / "erm-digits", folder / "erm-digits" / "seed-1"
    assert compare(cell).report().remarks == found.report().remarks[:2]
    assert (
        compare(single)
        .report()
        .remarks[0]
        .startswith("seed-1: failed: diverged (see its log); the figures are those of")
    )


def test_a_run_that_has_diverged_is_called_so_by_its_own_figures(tmp_path):
    for name, losses in {"gone": [2.0, 240.0, 240.0], "back": [2.0, 240.0, 2.0]}.items():
        run = kept(tmp_path / name, (), finished=False, epochs=9)
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | {"data": {"classes": 10}}))
        lines = [json.dumps({"epoch": epoch, "train_loss": loss}) for epoch, loss in enumerate(losses, 1)]
        (run / "metrics.jsonl").write_text("\n".join([*lines, ""]))
    assert compare(tmp_path / "gone", tmp_path / "back").report().remarks == [
        "gone: failed: diverged; the figures are those of epoch 3 of 9",
        "back: unfinished; the figures are those of epoch 3 of 9",
    ]


def test_data_that_differ_though_the_options_do_not_are_shown(tmp_path):
    def with_data(name, fingerprint, train_size=50, **options):
        run = kept(tmp_path / name, **options)
        config = json.loads((run / "config.json").read_text())
        config["data"] = {"fingerprint": fingerprint, "train_size": train_size, "meta_size": 0, "test_size": 9}
        (run / "config.json").write_text(json.dumps(config))
        return run

    one = with_data("one", "abcdefghij")
    rows = cells(compare(one, with_data("other", "0123456789")).report())
    assert rows["examples"] == ["50 training, 9 test (abcdefgh)", "50 training, 9 test (01234567)"]
    # another seed draws other examples, and a shown option says the same
    for alike in (
        with_data("seed", "k", seed=1),
        with_data("val", "k", 40, val_size=10),
        with_data("same", "abcdefghij"),
    ):
        assert "examples" not in cells(compare(one, alike).report())
    assert "examples" in cells(compare(one, with_data("fewer", "k", 40, seed=1)).report())


def test_the_table_is_printed_though_no_plot_can_be_drawn(tmp_path, reweight):
    done = reweight("compare", kept(tmp_path / "run", (), finished=False), "--plot", tmp_path / "curves.svg")
    assert done.status == 2
    assert "unfinished, before its first epoch" in done.out
    assert "no run has finished an epoch" in done.err


def test_problems_are_told(tmp_path):
    found = compare(kept(tmp_path / "a", health=["chance"]), sweep(tmp_path / "s", health=["chance", "one class"]))
    assert found.report().remarks == [
        "chance: a, erm-digits (3 runs), stir-digits (3 runs) (health in summary.json)",
        "one class: erm-digits (3 runs), stir-digits (3 runs) (health in summary.json)",
    ]


def test_the_device_is_shown_where_it_differs(tmp_path):
    found = compare(kept(tmp_path / "a"), kept(tmp_path / "b", device="H100"))
    assert cells(found.report())["device"] == ["cpu", "H100"]


def test_more_than_four_runs_have_a_row_each_without_figures_that_say_the_same(tmp_path):
    found = compare(*(kept(tmp_path / name, lr=rate / 10) for rate, name in enumerate("abcde", 1)))
    report = found.report()
    assert report.columns == ["run", "lr", "test accuracy", "balanced accuracy", "seconds"]
    assert [row[:2] for row in report.rows] == [[name, f"0.{rate}"] for rate, name in enumerate("abcde", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds neither a run nor a sweep"),
        ({"notes.txt": "x"}, "holds neither a run nor a sweep"),
        ({"config.json": "{"}, r"config\.json: no JSON"),
        ({"config.json": "[]"}, r"config\.json: holds no JSON object"),
        ({"config.json": "{}"}, r"config\.json: not that of a run"),
        ({"config.json": '{"options": {}}', "metrics.jsonl": "no\n"}, r"metrics\.jsonl, line 1: no JSON"),
        ({"config.json": '{"options": {"with": null}}'}, r"config\.json: not that of a run \(option with is None\)"),
        (
            {"config.json": '{"options": {"observe": null}}'},
            r"config\.json: not that of a run \(option observe is None",
        ),
        ({"config.json": '{"options": {"method": null}}'}, r"config\.json: not that of a run \(option method is None"),
        ({"config.json": '{"options": {"epochs": "9"}}'}, r"config\.json: not that of a run \(option epochs is '9'"),
        ({"config.json": '{"options": {}, "data": []}'}, r"config\.json: not that of a run$"),
        (BARE | {"metrics.jsonl": "[]\n"}, r"metrics\.jsonl, line 1: holds no JSON object"),
        (BARE | {"metrics.jsonl": '{"epoch": 1}\n{"a": 1}\n'}, r"metrics\.jsonl, line 2: has no epoch"),
        (BARE | {"metrics.jsonl": '{"epoch": 1, "seconds": "2"}\n'}, r"line 1: seconds is '2', not a number"),
        (BARE | {"summary.json": "[]"}, r"summary\.json: holds no JSON object"),
        (BARE | {"summary.json": '{"test_accuracy": "0.5"}'}, r"summary\.json: test_accuracy is '0.5', not a number"),
        (BARE | {"summary.json": '{"health": ["chance"]}'}, r"summary\.json: health is no list of problems"),
        (BARE | {"summary.json": "{}"}, r"summary\.json: does not say how many epochs there were"),
    ],
)
def test_what_is_no_run_is_told(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as told:
        compare(tmp_path)
    assert "remove" not in str(told.value)
    with pytest.raises(UserError, match="missing: holds neither a run nor a sweep"):
        compare(tmp_path / "missing")


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were drawn."""
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **_: figures.append(figure))
    return figures


def test_curves_are_means_over_seeds_with_a_band_of_a_deviation(tmp_path, drawn):
    compare(sweep(tmp_path / "sweep", auroc=0.9), kept(tmp_path / "alone")).plot(tmp_path / "curves.svg")
    accuracy, auroc = drawn[0].axes
    assert (accuracy.get_ylabel(), auroc.get_ylabel()) == ("test accuracy", "AUROC of weights")
    lines = {line.get_label(): line.get_xydata().tolist() for line in accuracy.lines}
    assert lines["stir-digits"] == [[1, 0.5], [2, pytest.approx(0.85)]]
    assert lines["alone"] == [[1, 0.5], [2, 0.75]]
    first, second = (band.get_paths()[0].vertices[:, 1] for band in accuracy.collections)
    assert (first.max(), first.min()) == (pytest.approx(0.9), pytest.approx(0.5))
    assert (second.max(), second.min()) == (pytest.approx(0.95), pytest.approx(0.5))
    # one is not known for the run by itself
    assert [len(line.get_xydata()) for line in auroc.lines] == [2, 2, 0]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["erm-digits", "stir-digits", "alone"]


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("a.pdf", b"%PDF")])
def test_the_ending_of_the_file_says_what_is_drawn(tmp_path, name, begins):
    compare(kept(tmp_path / "run", (0.5,))).plot(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("curves.gif", r"curves\.gif: must end in \.svg, \.png or \.pdf"),
        ("nowhere/curves.svg", r"curves\.svg: must be a file in a folder that exists"),
    ],
)
def test_a_file_that_cannot_be_drawn_is_told(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        compare(kept(tmp_path / "run")).plot(tmp_path / name)


def test_without_an_epoch_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="no run has finished an epoch"):
        compare(kept(tmp_path / "run", (), finished=False)).plot(tmp_path / "curves.svg")


def test_without_matplotlib_there_is_one_line_that_says_what_to_install(tmp_path, reweight, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = reweight("compare", kept(tmp_path / "run"), "--plot", tmp_path / "curves.svg")
    assert done.status == 2
    assert done.err.splitlines()[-1].endswith("install it with: pip install matplotlib")
    assert done.out == ""


def test_the_program_shows_the_table_or_json_and_draws(tmp_path, reweight):
    a, b = kept(tmp_path / "a"), kept(tmp_path / "b", lr=0.5)
    shown = reweight("compare", a, b, "--plot", tmp_path / "curves.svg")
    assert shown.status == 0, shown.err
    assert "0.7500" in shown.out and shown.out.endswith(f"curves in {tmp_path / 'curves.svg'}\n")
    assert (tmp_path / "curves.svg").exists()
    printed = reweight("compare", a, b, "--json")
    assert json.loads(printed.out) == compare(a, b).as_json()
    assert reweight("compare").status == 2
    assert "nothing: holds neither" in reweight("compare", a, tmp_path / "nothing").err
