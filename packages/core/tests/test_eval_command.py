"""What `reweight eval` and the end of `reweight train` show a person, for few classes and for many."""

import json
from pathlib import Path

import numpy as np
import pytest

from reweight_core.cli.main import main
from reweight_core.cli.progress import summary_table
from reweight_core.runs.judgement import Judgement, figures_of


def result_of(**sets):
    """What `evaluate` returns for sets with these confusion matrices."""
    result = {"step": 5, "epoch": 2}
    for part, confusion in sets.items():
        judged = Judgement(np.array(confusion), 0.125)
        names = [f"c{i:03}" for i in range(len(confusion))]
        result |= {f"{part}_size": int(judged.confusion.sum()), **figures_of(part, judged)}
        result |= {f"{part}_classes": judged.by_class(names), f"{part}_confusion": judged.confusion.tolist()}
    return result


@pytest.fixture
def show(monkeypatch, tmp_path, capsys):
    """Run the command for a run whose evaluation gives this; return what it prints."""
    (tmp_path / "config.json").touch()

    def show(result, *options):
        monkeypatch.setattr("reweight_core.runs.evaluate.evaluate", lambda *_: result)
        main(["eval", str(tmp_path), *options])
        return capsys.readouterr().out

    return show


def row(shown, name):
    (line,) = [line.split() for line in shown.splitlines() if line.split()[:1] == [name]]
    return line[1:]


def test_two_classes_are_a_row_each(show):
    shown = show(result_of(test=[[30, 10], [0, 5]], val=[[1, 1], [0, 2]]))
    assert "test accuracy 0.7778 on 45 examples (final network, of epoch 2, step 5)" in shown
    assert "validation accuracy 0.7500 on 4 examples" in shown
    assert row(shown, "macro-F1") == ["0.6786", "0.7333"]
    assert shown.splitlines()[[line.split()[:1] for line in shown.splitlines()].index(["balanced"])].split()[-2:] == [
        "0.8750",
        "0.7500",
    ]
    assert row(shown, "c000") == ["40", "0.7500", "1.0000", "c001", "(10)"]
    assert row(shown, "c001") == ["5", "1.0000", "0.3333"]


def test_a_class_without_examples_or_predictions_has_no_share(show):
    shown = show(result_of(val=[[4, 0, 1], [0, 0, 0], [3, 0, 2]]))
    assert row(shown, "c001") == ["0", "-", "-"]
    assert "classes of the validation set" in shown
    assert "test" not in shown


def test_of_a_thousand_classes_the_ten_of_the_smallest_recall_are_shown(show):
    confusion = np.diag(np.full(1000, 20))
    for rank, index in enumerate([700, 3, 999, 5, 42, 43, 44, 45, 46, 47, 48]):
        confusion[index, index] -= 15 - rank
        confusion[index, 1] += 15 - rank
    # none of these has a recall
    confusion[100:200] = 0
    shown = show(result_of(test=confusion))
    assert "the 10 of 1000 classes of the test set with the smallest recall" in shown
    found = [line.split()[0] for line in shown.splitlines() if line.split()[:1] and line.split()[0].startswith("c0")]
    assert len([line for line in shown.splitlines() if "c001 (" in line]) == 10
    assert found == ["c003", "c005", "c042", "c043", "c044", "c045", "c046", "c047"]
    assert row(shown, "c700") == ["20", "0.2500", "1.0000", "c001", "(15)"]


def test_json_has_everything(show):
    result = result_of(test=[[30, 10], [0, 5]])
    assert json.loads(show(result, "--json")) == result


@pytest.mark.parametrize(
    ("support", "balanced", "shown"), [([10, 20], 0.5, False), ([10, 21], 0.25, True), ([0, 1], 0.25, True)]
)
def test_the_balanced_accuracy_is_told_where_a_class_has_more_than_twice_as_many_examples(
    support, balanced, shown, capsys
):
    summary = dict.fromkeys(["val_accuracy", "noise_auroc", "stopped_early"]) | {"health": []}
    summary |= {"network": "best", "network_epoch": 7, "test_accuracy": 0.5, "test_accuracy_mean5": 0.25}
    summary |= {"test_balanced_accuracy": balanced, "test_macro_f1": 0.375, "test_classes": {"support": support}}
    summary_table(summary | {"seconds": 1.0, "seconds_per_step": 0.1}, Path("run"))
    printed = capsys.readouterr().out
    assert ("0.3750" in printed) == ("balanced" in printed) == shown
    assert "test accuracy (best epoch, 7)" in printed
