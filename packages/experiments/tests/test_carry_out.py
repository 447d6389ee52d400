from types import SimpleNamespace

import pytest

from reweight_core import UserError
from reweight_experiments import carry_out
from reweight_experiments.carry_out import Watcher, problems_of_data
from reweight_experiments.cells import axes_of, cells_of, plan_runs

pytestmark = pytest.mark.usefixtures("plugins")


def planned(tmp_path, methods, data, seeds=1):
    return plan_runs(cells_of(axes_of(methods, data, {}), {}), 0, seeds, tmp_path)


def test_each_kind_of_data_is_prepared_once_and_its_problem_is_that_of_its_cells(tmp_path, monkeypatch):
    loaded = []

    def load_data(config):
        loaded.append((config.data, config.seed))
        if config.data == "tail":
            raise UserError("tail is missing")
        if config.data == "march":
            raise ZeroDivisionError("odd")
        return SimpleNamespace(meta=None)

    monkeypatch.setattr(carry_out, "load_data", load_data)
    problems = problems_of_data(planned(tmp_path, "erm,shake", "digits,tail,march", seeds=2))
    assert sorted(loaded) == [("digits", 0), ("march", 0), ("tail", 0)]
    needs = problems.pop("shake-digits")
    assert "method 'shake' needs clean examples" in needs
    assert problems == {
        "erm-tail": "tail is missing",
        "shake-tail": "tail is missing",
        "erm-march": "ZeroDivisionError: odd",
        "shake-march": "ZeroDivisionError: odd",
    }


def test_runs_whose_data_fail_are_not_made_and_the_others_are(made, tmp_path, monkeypatch):
    def load_data(config):
        if config.data == "tail":
            raise UserError("tail is missing")
        return SimpleNamespace(meta=None)

    monkeypatch.setattr(carry_out, "load_data", load_data)
    runs = planned(tmp_path, "erm", "digits,tail")
    assert carry_out.carry_out(runs, tmp_path, 3, Watcher()) == {"erm-tail/seed-0": "tail is missing"}
    assert (made.names, made.at_once) == (["erm-digits/seed-0"], [3])


def test_an_interrupt_says_what_is_kept(made, tmp_path):
    class Stop(Watcher):
        def watch(self, ended, running):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        carry_out.carry_out(planned(tmp_path, "erm", "digits"), tmp_path, 1, Stop())
    assert stopped.value.__notes__ == [f"finished runs are kept in {tmp_path}; the same command goes on from there"]


def test_an_observer_without_its_library_is_told_once_before_any_run(made, tmp_path, monkeypatch):
    built = []

    def build_observers(config):
        built.append(config.method)
        if config.method == "stir":
            raise UserError("pip install paper")

    monkeypatch.setattr("reweight_core.training.build.build_observers", build_observers)
    carry_out.carry_out(planned(tmp_path, "erm", "digits"), tmp_path, 1, Watcher())
    with pytest.raises(UserError, match=r"^pip install paper$"):
        carry_out.carry_out(planned(tmp_path / "other", "stir", "digits,tail"), tmp_path / "other", 1, Watcher())
    assert (built, made.names) == (["erm", "stir"], ["erm-digits/seed-0"])
