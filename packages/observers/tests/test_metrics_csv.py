"""The figures of a run as CSV, read with Python's reader."""

import csv
import math

import pytest

from reweight_observers.metrics_csv import MetricsCSV


def rows(run):
    with open(run.folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_epoch_is_a_row_and_null_is_empty(run):
    run.tell(MetricsCSV(None), [1, 2], epoch_2={"train_loss": math.inf})
    assert rows(run) == [
        {"stage": "train", "epoch": "1", "step": "10", "train_loss": "1.0", "meta_loss": "", "noise_auroc": "0.6"},
        {"stage": "train", "epoch": "2", "step": "20", "train_loss": "", "meta_loss": "", "noise_auroc": "0.7"},
    ]


def test_a_row_is_there_as_soon_as_its_epoch_is_over(run):
    class Stops(MetricsCSV):
        def observe_epoch(self, metrics):
            super().observe_epoch(metrics)
            if metrics["epoch"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.tell(Stops(None), [1, 2, 3])
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]


def test_a_figure_that_comes_later_is_a_further_column_that_is_empty_before(run):
    run.tell(MetricsCSV(None), [1, 2, 3], epoch_2={"trusted, purity": 0.5})
    assert [row["trusted, purity"] for row in rows(run)] == ["", "0.5", ""]
    assert [row["train_loss"] for row in rows(run)] == [str(1 / epoch) for epoch in (1, 2, 3)]


@pytest.mark.parametrize("after", [0, 2])
def test_a_resumed_run_has_no_row_twice(run, after):
    run.tell(MetricsCSV(None), [1, 2, 3], epoch_2={"late": 4})
    whole = (run.folder / "metrics.csv").read_text()
    run.tell(MetricsCSV(None), range(after + 1, 4), after, epoch_2={"late": 4})
    assert (run.folder / "metrics.csv").read_text() == whole
