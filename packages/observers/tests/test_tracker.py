"""Logs by libraries with wandb's interface, which a small one stands for here."""

import sys
from types import ModuleType

import numpy as np
import pytest

from reweight_core import UserError
from reweight_observers.options import TrackerConfig
from reweight_observers.tracker import Trackio, WandB


class Library(ModuleType):
    """Keeps what it is told: the keywords of `init`, rows by step, how runs were finished."""

    def __init__(self, name):
        super().__init__(name)
        self.begun, self.rows, self.finished, self.open = [], [], [], False

    def init(self, **keywords):
        print("welcome")
        assert not self.open
        self.begun.append(keywords)
        self.open = True
        return self

    def log(self, figures, step):
        assert self.open
        self.rows.append((step, figures))

    def finish(self, exit_code=0):
        print("goodbye")
        self.open = False
        self.finished.append(exit_code)

    class Histogram(list):
        """The values as they were given."""

        def __init__(self, sequence):
            super().__init__(np.asarray(sequence).tolist())


@pytest.fixture(params=[Trackio, WandB], ids=["trackio", "wandb"])
def kind(request, monkeypatch):
    """A kind of tracker whose library is such a one."""
    monkeypatch.delenv("TRACKIO_PROJECT", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setitem(sys.modules, request.param.library, Library(request.param.library))
    return request.param


@pytest.fixture
def library(kind):
    return sys.modules[kind.library]


def test_an_epoch_is_a_row_of_numbers_and_histograms(run, kind, library):
    run.tell(kind(TrackerConfig()), [1, 2])
    (first, figures), (second, _) = library.rows
    assert (first, second) == (1, 2)
    histograms = {name: figures.pop(name) for name in ("weights", "weights_clean", "weights_corrupted")}
    assert figures == {"steps": 10, "train_loss": 1.0, "noise_auroc": 0.6}
    assert histograms["weights"] == pytest.approx([0.1, 0.2, 0.3])
    assert histograms["weights_corrupted"] == pytest.approx([0.2])
    assert library.finished == [0]


def test_a_run_has_its_options_and_by_default_the_name_of_its_folder(run, kind, library):
    run.tell(kind(TrackerConfig()), [])
    (begun,) = library.begun
    assert begun["config"] == {"method": "erm", "epochs": 5}
    assert (begun["project"], begun["name"]) == ("reweight", "mine")


def test_project_and_name_are_those_of_the_options_then_of_the_environment(run, kind, library, monkeypatch):
    monkeypatch.setenv(f"{kind.library.upper()}_PROJECT", "ours")
    run.tell(kind(TrackerConfig(name="other")), [])
    run.tell(kind(TrackerConfig(project="mine")), [])
    assert [(begun["project"], begun["name"]) for begun in library.begun] == [("ours", "other"), ("mine", "mine")]


def test_a_resumed_run_goes_on_in_its_log_and_logs_no_epoch_again(run, kind, library):
    run.tell(kind(TrackerConfig(project="p")), [1, 2, 3], error=KeyboardInterrupt())
    run.tell(kind(TrackerConfig(project="q")), [3, 4], after=2)
    assert [step for step, _ in library.rows] == [1, 2, 3, 4]
    first, second = library.begun
    assert second["resume"] == "allow"
    assert {name: second.get(name) for name in ("project", "name", "id")} == {
        name: first.get(name) for name in ("project", "name", "id")
    }


def test_a_run_that_begins_anew_in_its_folder_has_a_log_of_its_own(run, kind, library):
    run.tell(kind(TrackerConfig()), [1, 2])
    run.tell(kind(TrackerConfig()), [1, 2])
    assert [step for step, _ in library.rows] == [1, 2, 1, 2]
    first, second = library.begun
    assert second["resume"] == "never" if kind is Trackio else second["id"] != first["id"]


def test_wandb_hears_that_a_run_failed(run, kind, library):
    run.tell(kind(TrackerConfig()), [1], error=ValueError())
    assert library.finished == [int(kind is WandB)]


def test_what_the_library_prints_is_no_part_of_the_programs_output(run, kind, capsys):
    run.tell(kind(TrackerConfig()), [1])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["welcome", "goodbye"]


def test_the_dashboard_of_trackio_does_not_start(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", Library("trackio"))
    run.tell(Trackio(TrackerConfig()), [])
    assert sys.modules["trackio"].begun[0]["embed"] is False


@pytest.mark.parametrize("kind", [Trackio, WandB])
def test_without_the_library_there_is_one_line_that_says_what_to_install(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind.library, None)
    with pytest.raises(
        UserError, match=rf"^--observe {kind.library}: .*; install it with: pip install {kind.library}$"
    ):
        kind(TrackerConfig())


def test_one_that_was_never_begun_can_be_ended(kind, library):
    kind(TrackerConfig()).end_run(None)
    assert library.finished == []
