"""Logs by libraries with wandb's interface, which a small one stands for here."""

import sys
from types import ModuleType

import numpy as np
import pytest

from reweight_core import UserError
from reweight_observers.options import TrackerConfig
from reweight_observers.tracker import Trackio, WandB


class Run:
    """A run of the library: what it has got by step, and what waits to be sent."""

    def __init__(self, library, name, id):
        self.library, self.name, self.id = library, name, id
        self.kept, self.waiting = [], []
        self.go_on()

    def go_on(self):
        last = max((step for step, _ in self.kept), default=None)
        # the name that each of the two libraries has for it
        self._next_step = self.starting_step = 0 if last is None else last + 1

    def log(self, figures, step):
        assert self.library.current is self
        self.waiting.append((step, figures))

    def send(self):
        self.kept += self.waiting
        self.waiting = []


class Library(ModuleType):
    """Keeps runs: wandb finds one by its id, trackio the latest of its name that has a row."""

    def __init__(self, name):
        super().__init__(name)
        self.begun, self.runs, self.finished, self.current = [], [], [], None

    def init(self, resume, name, id=None, **keywords):
        print("welcome")
        assert self.current is None
        self.begun.append({"name": name, "id": id, **keywords})
        same = [run for run in self.runs if (run.id == id if id else run.name == name and run.kept)]
        if same and resume == "allow":
            self.current = same[-1]
            self.current.go_on()
        else:
            self.current = Run(self, name, id)
            self.runs.append(self.current)
        return self.current

    def finish(self, exit_code=0):
        print("goodbye")
        self.current.send()
        self.current = None
        self.finished.append(exit_code)

    def kill(self, sent):
        """End as a process that is killed when so many rows were sent: the others are lost."""
        self.current.waiting = self.current.waiting[:sent]
        self.current.send()
        self.current = None

    @property
    def steps(self):
        """The steps of every run."""
        return [[step for step, _ in run.kept] for run in self.runs]

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


def called(begun):
    """The name that a run was begun with, without the id that trackio's has at its end."""
    return begun["name"] if begun["id"] else begun["name"][: -len("-12345678")]


def test_an_epoch_is_a_row_of_numbers_and_histograms(run, kind, library):
    run.tell(kind(TrackerConfig()), [1, 2])
    (first, figures), (second, _) = library.runs[0].kept
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
    assert (begun["project"], called(begun)) == ("reweight", "mine")


def test_project_and_name_are_those_of_the_options_then_of_the_environment(run, kind, library, monkeypatch):
    monkeypatch.setenv(f"{kind.library.upper()}_PROJECT", "ours")
    run.tell(kind(TrackerConfig(name="other")), [])
    run.tell(kind(TrackerConfig(project="mine")), [])
    assert [(begun["project"], called(begun)) for begun in library.begun] == [("ours", "other"), ("mine", "mine")]


def test_a_resumed_run_goes_on_in_its_log_and_logs_no_epoch_again(run, kind, library):
    run.tell(kind(TrackerConfig(project="p")), [1, 2, 3], error=KeyboardInterrupt())
    run.tell(kind(TrackerConfig(project="q")), [3, 4], after=2)
    assert library.steps == [[1, 2, 3, 4]]
    first, second = library.begun
    assert first == second


def test_a_resumed_run_never_goes_on_in_another_of_its_name(run, kind, library):
    run.tell(kind(TrackerConfig(name="same")), [1, 2], error=KeyboardInterrupt())
    file = run.folder / f"{kind.library}.json"
    place = file.read_text()
    run.tell(kind(TrackerConfig(name="same")), [1, 2, 3])
    file.write_text(place)
    run.tell(kind(TrackerConfig(name="same")), [3, 4], after=2)
    assert library.steps == [[1, 2, 3, 4], [1, 2, 3]]


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_what_was_lost_as_the_process_was_killed_is_logged_at_the_resume(run, kind, library, sent):
    run.tell(kind(TrackerConfig()), [1, 2, 3], killed=True)
    library.kill(sent)
    run.tell(kind(TrackerConfig()), [3, 4], after=2)
    # trackio forgets a run of which it has no row
    assert [steps for steps in library.steps if steps] == [[1, 2, 3, 4]]
    by_step = dict(library.runs[-1].kept)
    assert by_step[2]["train_loss"] == 0.5
    assert "weights" in by_step[3]


def test_a_run_that_begins_anew_in_its_folder_has_a_log_of_its_own(run, kind, library):
    run.tell(kind(TrackerConfig()), [1, 2])
    run.tell(kind(TrackerConfig()), [1, 2])
    assert library.steps == [[1, 2], [1, 2]]


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
