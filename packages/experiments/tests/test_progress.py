import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from reweight_experiments import progress
from reweight_experiments.cells import axes_of, cells_of, plan_runs
from reweight_experiments.jobs import Ended, Job
from reweight_experiments.progress import SweepProgress, last_metrics, show
from reweight_experiments.report import Report, Results

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def runs(tmp_path):
    planned = plan_runs(cells_of(axes_of("erm", "digits", {}), {"epochs": 4}), 0, 3, tmp_path)
    for run in planned:
        run.folder.mkdir(parents=True)
    (planned[0].folder / "summary.json").write_text(json.dumps({"test_accuracy": 0.5}))
    (planned[2].folder / "metrics.jsonl").write_text(json.dumps({"epoch": 3, "step": 9, "test_accuracy": 0.25}) + "\n")
    return {run.name: run for run in planned}


def jobs_of(runs):
    return [Job(name, (), Path("log")) for name in runs]


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand: ``clock.now``."""
    clock = SimpleNamespace(now=0.0)
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(progress.time, name, lambda: clock.now)
    return clock


def test_elsewhere_than_on_a_terminal_each_ended_run_is_a_line(runs, capsys, clock):
    first, second, third = jobs_of(runs)
    with SweepProgress() as shown:
        shown.begin(2, runs)
        shown.watch([], [first, second], 0)
        clock.now = 10
        shown.watch([Ended(first, 1.26, None)], [second, third], 0)
        clock.now = 20
        shown.watch([Ended(first, 1.26, None), Ended(second, 3, "too hot")], [third], 0)
    assert capsys.readouterr().out.splitlines() == [
        "2 of 5 runs are finished already",
        # one run and three of four epochs of another took 10 s, then two and three of four took 20 s
        "erm-digits/seed-0  test 0.5000  1.3 s  (1 of 3, 7 s left)",
        "erm-digits/seed-1  failed: too hot  (2 of 3, 2 s left)",
    ]


def test_where_runs_are_long_their_epochs_are_told_now_and_then(runs, capsys, clock):
    first, second, third = jobs_of(runs)
    shown = SweepProgress()
    shown.begin(0, runs)
    for clock.now in range(0, 130, 10):
        shown.watch([], [second, third], 0)
    shown.watch([Ended(first, 1.26, None)], [second, third], 0)
    for clock.now in range(130, 190, 10):
        shown.watch([Ended(first, 1.26, None)], [second, third], 0)
    state = "running: erm-digits/seed-1 0/4, erm-digits/seed-2 3/4"
    # three quarters of a run in 60 and 120 s
    assert capsys.readouterr().out.splitlines() == [
        f"0 of 3 runs done, 3 min left; {state}",
        f"0 of 3 runs done, 6 min left; {state}",
        "erm-digits/seed-0  test 0.5000  1.3 s  (1 of 3, 86 s left)",
        f"1 of 3 runs done, 2 min left; {state}",
    ]


def test_quiet_means_no_line_of_a_run(runs, capsys, clock):
    first, second, third = jobs_of(runs)
    with SweepProgress(quiet=True) as shown:
        shown.begin(2, runs)
        clock.now = 1000
        shown.watch([Ended(first, 1.26, None)], [second, third], 0)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_running_runs_are_a_table(runs, monkeypatch, clock):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda: Console(file=screen, force_terminal=True, width=100))
    first, second, third = jobs_of(runs)
    shown = SweepProgress()
    shown.begin(0, runs)
    with shown:
        clock.now = 10
        shown.watch([Ended(first, 10, "too hot")], [second, third], 0)
    text = screen.getvalue()
    # one run and three of four epochs of another took 10 s: 1.25 runs are left
    assert "1 of 3 runs done, 1 failed, 7 s left" in text
    line = next(line for line in text.splitlines() if "seed-2" in line)
    assert line.split()[-2:] == ["3/4", "0.2500"]


def test_a_result_is_shown_as_it_is_written(capsys, tmp_path):
    report = Report(["above [all]"], ["name", "n"], [["[b]a[/b]", "1"]], ["below"], ["name"])
    show(Results(tmp_path, [], report))
    out = capsys.readouterr().out
    assert out.startswith("above [all]\n")
    assert "[b]a[/b]" in out
    assert out.endswith(f"below\nalso in {tmp_path / 'results.md'}, results.csv and results.json\n")


@pytest.mark.parametrize("width", [200, 80, 40])
def test_figures_are_neither_broken_nor_cut(monkeypatch, tmp_path, width):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda: Console(file=screen, width=width))
    figures = ["0.7912 ± 0.0512", "0.7823 ± 0.0478", "0.9134 ± 0.0256", "12.3 ± 0.4"]
    titles = ["test accuracy", "mean of last 5", "AUROC of weights", "seconds"]
    labels = {"method": "mwnet", "data": "digits", "noise": "uniform:0.4"}
    show(Results(tmp_path, [], Report([], [*labels, *titles], [[*labels.values(), *figures]], [], titles)))
    *lines, _ = screen.getvalue().splitlines()
    (line,) = (line for line in lines if figures[0] in line)
    assert [text.strip() for text in line.split("  ")][-4:] == figures
    assert max(map(len, lines)) <= max(width, 80)


def test_only_whole_lines_of_metrics_are_read(tmp_path):
    assert last_metrics(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert last_metrics(tmp_path) == {"epoch": 2}
    (tmp_path / "metrics.jsonl").write_text('{"epo')
    assert last_metrics(tmp_path) is None
