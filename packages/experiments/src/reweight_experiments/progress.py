"""What a person sees of a sweep: a live table on a terminal, plain lines elsewhere, the result table at the end."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table

from reweight_core import console
from reweight_experiments.carry_out import Watcher
from reweight_experiments.cells import PlannedRun
from reweight_experiments.folder import read_json
from reweight_experiments.jobs import Ended, Job
from reweight_experiments.report import Report, Results


class SweepProgress(Watcher):
    """Shows how the runs of a sweep get on; use it as a context manager around the sweep."""

    def __init__(self) -> None:
        self._runs: Mapping[str, PlannedRun] = {}
        self._told = 0
        self._started = time.monotonic()
        screen = console()
        self._live = Live(console=screen, transient=True, auto_refresh=False) if screen.is_terminal else None

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, finished: int, runs: Mapping[str, PlannedRun]) -> None:
        """Say what is there already; begin to show the others."""
        if finished:
            print(f"{finished} of {finished + len(runs)} runs are finished already", flush=True)
        self._runs, self._started = runs, time.monotonic()
        if self._live is not None and runs:
            self._live.start()

    def watch(self, ended: Sequence[Ended], running: Collection[Job]) -> None:
        """Show the state of the sweep."""
        if self._live is not None:
            self._live.update(self._table(ended, running), refresh=True)
            return
        for one in ended[self._told :]:
            self._told += 1
            print(f"{self._line(one)}  ({self._told} of {len(self._runs)})", flush=True)

    def _line(self, one: Ended) -> str:
        if one.error is not None:
            return f"{one.job.name}  failed: {one.error}"
        accuracy = read_json(self._runs[one.job.name].folder / "summary.json")["test_accuracy"]
        return f"{one.job.name}  test {_share(accuracy)}  {one.seconds:.1f} s"

    def _table(self, ended: Sequence[Ended], running: Collection[Job]) -> Table:
        failed = sum(one.error is not None for one in ended)
        table = Table(box=box.SIMPLE, title_justify="left", title_style="")
        for title in ("running", "epoch", "test accuracy"):
            table.add_column(title, justify="left" if title == "running" else "right")
        done = float(len(ended))
        for job in running:
            run = self._runs[job.name]
            metrics = last_metrics(run.folder) or {"epoch": 0, "step": 0, "test_accuracy": None}
            config = run.config
            share = metrics["step"] / config.steps if config.steps else metrics["epoch"] / config.epochs
            done += min(share, 1)
            epochs = "" if config.steps else f"/{config.epochs}"
            table.add_row(job.name, f"{metrics['epoch']}{epochs}", _share(metrics["test_accuracy"]))
        title = f"{len(ended)} of {len(self._runs)} runs done"
        if failed:
            title += f", {failed} failed"
        if done:
            passed = time.monotonic() - self._started
            title += f", {_duration(passed * (len(self._runs) - done) / done)} left"
        table.title = title
        return table


def show(results: Results) -> None:
    """Print a result table and where it is kept."""
    screen = console()
    print_report(screen, results.report)
    screen.print(f"also in {results.folder / 'results.md'}, results.csv and results.json", soft_wrap=True)


def print_report(screen: Console, report: Report) -> None:
    """Print a table with the lines above and below it."""
    for line in report.heading:
        screen.print(line, soft_wrap=True)
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, title in enumerate(report.columns):
        if title in report.unbroken:
            words, texts = title.split(), [row[place] for row in report.rows]
            width = max(map(cell_len, [*words, *texts]))
            table.add_column("\n".join(textwrap.wrap(title, width)), no_wrap=True, min_width=width)
        else:
            table.add_column(title, overflow="fold", min_width=3)
    for row in report.rows:
        table.add_row(*row)
    # on a screen that is too narrow even so, nothing is cut off
    screen.print(table, crop=False)
    for line in report.remarks:
        screen.print(line, soft_wrap=True)


def last_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the last whole line of a run's metrics.jsonl; None if there is none yet."""
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    except OSError:
        return None
    whole = text.split("\n")[:-1]
    return json.loads(whole[-1]) if whole else None


def _share(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.4f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
