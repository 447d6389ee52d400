import json
import threading
from types import SimpleNamespace

import attrs
import pytest

from reweight_core import DataPlugin, UserError, as_values, locked, option
from reweight_experiments import carry_out, claims, leases
from reweight_experiments.carry_out import Watcher, problems_of_data
from reweight_experiments.cells import axes_of, cells_of, plan_runs

pytestmark = pytest.mark.usefixtures("plugins")


def planned(tmp_path, methods, data, seeds=1):
    return plan_runs(cells_of(axes_of(methods, data, {}), {}), 0, seeds, tmp_path)


@attrs.frozen
class FarOptions:
    """Options of the dataset `far`."""

    download: bool = option(False, "Whether to fetch it.", changes_result=False)


def never(*arguments):
    raise AssertionError("nothing is built here")


def make(runs, out, watcher=None):
    with carry_out.carry_out(runs, out, [{}], watcher or Watcher()) as outcome:
        return outcome


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
    runs = planned(tmp_path, "erm", "digits,tail", seeds=2)
    with carry_out.carry_out(runs, tmp_path, [{}] * 3, Watcher()) as outcome:
        assert outcome.errors == {"erm-tail/seed-0": "tail is missing", "erm-tail/seed-1": "tail is missing"}
        assert not outcome.elsewhere
    # the threads are shared by as many processes as there will be
    assert (made.names, made.at_once) == (["erm-digits/seed-0", "erm-digits/seed-1"], [2])


def test_what_shares_the_processors_counts_the_processes_of_each_run(made, plugins, tmp_path, monkeypatch):
    for kind, name in (("method", "erm"), ("loss", "cross-entropy")):
        monkeypatch.setitem(plugins[kind], name, attrs.evolve(plugins[kind][name], several_processes=True))
    cells = cells_of(axes_of("erm", "digits", {"processes": ["1", "2"]}), {})
    assert not make(plan_runs(cells, 0, 1, tmp_path), tmp_path).errors
    assert [job.processes for job in made.jobs] == [1, 2]


def test_others_that_are_alive_are_left_to_end_what_they_have_begun(made, tmp_path, monkeypatch):
    for module in (leases, claims):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.02)
    runs = planned(tmp_path, "erm,stir", "digits")
    (tmp_path / "stir-digits").mkdir()
    with leases.Leases().held(tmp_path / "stir-digits" / "seed-0"):
        outcome = make(runs, tmp_path)
    assert made.names == ["erm-digits/seed-0"]
    assert (outcome.errors, outcome.elsewhere) == ({}, ["stir-digits/seed-0"])
    assert make(runs, tmp_path).elsewhere == []
    assert made.names == ["erm-digits/seed-0", "stir-digits/seed-0"]
    assert not list(tmp_path.rglob("*.lease-*"))


def test_what_a_dead_process_has_begun_is_waited_for_and_made(made, tmp_path, monkeypatch):
    for module in (leases, claims):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(leases, "LAPSE_SECONDS", 0.2)
    (tmp_path / "erm-digits").mkdir()
    (tmp_path / "erm-digits" / "seed-0.lease-3").write_text("dead")
    assert make(planned(tmp_path, "erm", "digits"), tmp_path).elsewhere == []
    assert made.names == ["erm-digits/seed-0"]
    assert not list(tmp_path.rglob("*.lease-*"))


def test_a_run_that_is_taken_over_is_stopped_here_and_not_a_failure(made, tmp_path, monkeypatch):
    for module in (leases, claims):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.02)
    stopped = []

    class Sleeping:
        """A run that another process takes over, and ends."""

        def __init__(self, at_once):
            self.running = []

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            assert not self.running

        def start(self, job):
            self.running.append(job)
            (file,) = tmp_path.glob("*/*.lease-1")
            self.other = file.with_name("seed-0.lease-2")
            self.other.write_text("another")

        def kill(self, job):
            stopped.append(job.name)
            self.running = []
            (run,) = planned(tmp_path, "erm", "digits")
            run.folder.mkdir()
            (run.folder / "config.json").write_text(json.dumps({"options": as_values(run.config)}))
            (run.folder / "summary.json").write_text("{}")
            self.other.unlink()

        def ended(self):
            return []

    monkeypatch.setattr(carry_out, "Processes", Sleeping)
    with pytest.warns(UserWarning, match="erm-digits/seed-0: is stopped here, .* another process"):
        outcome = make(planned(tmp_path, "erm", "digits"), tmp_path)
    assert stopped == ["erm-digits/seed-0"]
    assert (outcome.errors, outcome.elsewhere) == ({}, [])
    assert not list(tmp_path.rglob("*.lease-*"))


def test_a_run_whose_folder_is_in_use_is_made_later_and_is_no_failure(made, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    for name in ("RENEW_SECONDS", "LAPSE_SECONDS"):
        monkeypatch.setattr(claims, name, 0.05)
    first, second = planned(tmp_path, "erm,stir", "digits")
    first.folder.mkdir(parents=True)
    lock = locked(first.folder, "it")
    lock.__enter__()
    threading.Timer(0.3, lock.__exit__, (None, None, None)).start()
    outcome = make([first, second], tmp_path)
    assert (outcome.errors, outcome.elsewhere) == ({}, [])
    assert made.names == [second.name, first.name]


def test_data_that_are_to_be_downloaded_are_tried_by_one_process_at_a_time(plugins, tmp_path, monkeypatch):
    held = []

    def load_data(config):
        held.append((config.data, [path.name for path in tmp_path.glob("*.lease-*")]))
        raise UserError("no network")

    monkeypatch.setattr(carry_out, "load_data", load_data)
    monkeypatch.setitem(plugins["data"], "far", DataPlugin("far", "distant", never, FarOptions))
    for given in ({}, {"download": True}):
        runs = plan_runs(cells_of(axes_of("erm", "far", {}), given), 0, 1, tmp_path)
        assert make(runs, tmp_path).errors == {"erm-far/seed-0": "no network"}
    assert held == [("far", []), ("far", ["data.lease-1"])]


def test_an_interrupt_says_what_is_kept(made, tmp_path):
    class Stop(Watcher):
        def watch(self, ended, running, elsewhere):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        make(planned(tmp_path, "erm", "digits"), tmp_path, Stop())
    assert stopped.value.__notes__ == [f"finished runs are kept in {tmp_path}; the same command goes on from there"]


def test_an_observer_without_its_library_is_told_once_before_any_run(made, tmp_path, monkeypatch):
    built = []

    def build_observers(config):
        built.append(config.method)
        if config.method == "stir":
            raise UserError("pip install paper")

    monkeypatch.setattr("reweight_core.training.build.build_observers", build_observers)
    make(planned(tmp_path, "erm", "digits"), tmp_path)
    with pytest.raises(UserError, match=r"^pip install paper$"):
        make(planned(tmp_path / "other", "stir", "digits,tail"), tmp_path / "other")
    assert (built, made.names) == (["erm", "stir"], ["erm-digits/seed-0"])
