"""Event files, read back by TensorBoard itself."""

import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reweight_core import UserError
from reweight_observers.options import TensorBoardConfig
from reweight_observers.tensorboard_log import TensorBoardLog

LABELS = {"true": np.zeros(1), "observed": np.zeros(1)}


def read(folder):
    log = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    log.Reload()
    return log


def scalars(log, name):
    return {event.step: pytest.approx(event.value) for event in log.Scalars(name)}


def test_scalars_and_histograms_are_those_of_the_epochs(run):
    run.tell(TensorBoardLog(TensorBoardConfig()), [1, 2])
    log = read(run.folder)
    assert set(log.Tags()["scalars"]) == {"step", "train_loss", "noise_auroc"}
    assert scalars(log, "train_loss") == {1: 1.0, 2: 0.5}
    assert set(log.Tags()["histograms"]) == {"weights", "weights_clean", "weights_corrupted"}
    by_step = {event.step: event.histogram_value for event in log.Histograms("weights")}
    assert [by_step[epoch].num for epoch in (1, 2)] == [3, 3]
    assert [by_step[epoch].sum for epoch in (1, 2)] == pytest.approx([0.6, 1.2])
    (corrupted,) = [event.histogram_value for event in log.Histograms("weights_corrupted") if event.step == 1]
    assert (corrupted.num, corrupted.min) == (1, pytest.approx(0.2))


def test_options_are_a_text(run):
    run.tell(TensorBoardLog(TensorBoardConfig()), [1])
    (text,) = read(run.folder).Tensors("options/text_summary")
    assert b"| method | erm |" in text.tensor_proto.string_val[0]


def test_a_resumed_run_goes_on_in_the_same_log_without_an_epoch_twice(run):
    run.tell(TensorBoardLog(TensorBoardConfig()), [1, 2, 3], error=KeyboardInterrupt())
    run.tell(TensorBoardLog(TensorBoardConfig()), [3, 4], after=2)
    log = read(run.folder)
    assert [event.step for event in log.Scalars("train_loss")] == [1, 2, 3, 4]
    assert [event.step for event in log.Histograms("weights")] == [1, 2, 3, 4]


def test_logs_may_lie_elsewhere_each_run_in_a_folder_of_its_name(run, tmp_path):
    run.tell(TensorBoardLog(TensorBoardConfig(log_dir=tmp_path / "logs")), [1])
    assert scalars(read(tmp_path / "logs" / "mine"), "train_loss") == {1: 1.0}
    assert {path.name for path in run.folder.iterdir()} == {"metrics.jsonl", "tensorboard.json"}


def test_runs_of_one_name_have_a_log_each_and_go_on_in_their_own(run, tmp_path):
    logs = tmp_path / "logs"
    first, second = run.folder, tmp_path / "elsewhere" / "mine"
    second.mkdir(parents=True)
    run.tell(TensorBoardLog(TensorBoardConfig(log_dir=logs)), [1, 2], error=KeyboardInterrupt())
    other = TensorBoardLog(TensorBoardConfig(log_dir=logs))
    other.begin_run(second, {}, 0)
    other.observe_epoch({"epoch": 1, "train_loss": 7.0}, {"last_weight": np.ones(1), "visits": np.zeros(1)} | LABELS)
    other.end_run()
    run.tell(TensorBoardLog(TensorBoardConfig(log_dir=logs)), [3], after=2)
    assert scalars(read(logs / "mine"), "train_loss") == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    assert scalars(read(logs / "mine-2"), "train_loss") == {1: 7.0}
    assert {path.name for path in logs.iterdir()} == {"mine", "mine-2"}
    assert not list(first.glob("events*"))


def test_a_place_where_no_log_can_lie_is_told_as_the_observer_is_built(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "logs"):
        with pytest.raises(UserError, match=rf"^--tensorboard-log-dir {place}: {tmp_path / 'file'} is no folder"):
            TensorBoardLog(TensorBoardConfig(log_dir=place))
    TensorBoardLog(TensorBoardConfig(log_dir=tmp_path / "new" / "logs"))
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_an_epoch_can_be_read_while_the_run_goes_on(run):
    seen = []

    class Watched(TensorBoardLog):
        def observe_epoch(self, metrics, samples):
            super().observe_epoch(metrics, samples)
            seen.append(len(read(run.folder).Scalars("train_loss")))

    run.tell(Watched(TensorBoardConfig()), [1, 2])
    assert seen == [1, 2]


def test_without_tensorboard_there_is_one_line_that_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        UserError, match=r"^--observe tensorboard: .*tensorboard.*; install .*: pip install tensorboard$"
    ):
        TensorBoardLog(TensorBoardConfig())


def test_one_that_was_never_begun_can_be_ended():
    TensorBoardLog(TensorBoardConfig()).end_run()


def test_no_histogram_is_made_of_weights_that_are_no_numbers(run):
    log = TensorBoardLog(TensorBoardConfig())
    log.begin_run(run.folder, {}, 0)
    seen = {"visits": np.ones(2), "true": np.zeros(2), "observed": np.zeros(2), "last_weight": np.full(2, np.nan)}
    log.observe_epoch({"epoch": 1, "train_loss": 1.0}, seen)
    log.end_run()
    assert read(run.folder).Tags()["histograms"] == []
