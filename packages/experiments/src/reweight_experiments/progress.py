"""What a person sees of a sweep: a live table on a terminal, plain lines elsewhere, the result table at the end."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table

from reweight_core import Pace, console, duration
from reweight_experiments.carry_out import Watcher
from reweight_experiments.cells import PlannedRun
from reweight_experiments.folder import read_json
from reweight_experiments.jobs import Ended, Job
from reweight_experiments.report import Report, Results, failures, logged_warnings, warnings_of


class SweepProgress(Watcher):
    """Shows how the runs of a sweep get on; use it as a context manager around the sweep.

    Args:
        quiet: whether to show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._pace = quiet, Pace()
        self._runs: Mapping[str, PlannedRun] = {}
        self._told = 0
        self._started = time.monotonic()
        screen = console()
        shows_table = screen.is_terminal and not quiet
        self._live = Live(console=screen, transient=True, auto_refresh=False) if shows_table else None

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, finished: int, runs: Mapping[str, PlannedRun]) -> None:
        """Say what is there already; begin to show the others."""
        if finished:
            self._say(f"{finished} of {finished + len(runs)} runs are finished already")
        self._runs, self._started = runs, time.monotonic()
        if self._live is not None and runs:
            self._live.start()

    def watch(self, ended: Sequence[Ended], running: Collection[Job], elsewhere: int) -> None:
        """Show the state of the sweep."""
        done = f"{len(ended) + elsewhere} of {len(self._runs)}"
        left = self._left(len(ended) + elsewhere, running)
        if self._live is not None:
            failed = sum(one.error is not None for one in ended)
            title = f"{done} runs done{f', {failed} failed' if failed else ''}{left}"
            self._live.update(self._table(title, running), refresh=True)
            return
        if self._quiet:
            return
        for one in ended[self._told :]:
            self._told += 1
            self._say(f"{self._line(one)}  ({self._told + elsewhere} of {len(self._runs)}{left})")
        if self._pace.is_due():
            states = ", ".join(f"{job.name} {self._epoch(job)}" for job in running)
            self._say(f"{done} runs done{left}; running: {states or 'in other processes'}")

    def wait_for(self, names: Collection[str]) -> None:
        """Say why nothing is made here for a while."""
        left = "1 run is" if len(names) == 1 else f"{len(names)} runs are"
        self._say(f"{left} left, which others began: waiting a minute at most to see whether they are alive")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._pace.said()
            print(text, flush=True)

    def _line(self, one: Ended) -> str:
        if one.error is not None:
            return f"{one.job.name}  failed: {one.error}"
        accuracy = read_json(self._runs[one.job.name].folder / "summary.json")["test_accuracy"]
        return f"{one.job.name}  test {_share(accuracy)}  {one.seconds:.1f} s"

    def _table(self, title: str, running: Collection[Job]) -> Table:
        table = Table(box=box.SIMPLE, title=title, title_justify="left", title_style="")
        for column in ("running", "epoch", "test accuracy"):
            table.add_column(column, justify="left" if column == "running" else "right")
        for job in running:
            table.add_row(job.name, self._epoch(job), _share(self._metrics(job)["test_accuracy"]))
        return table

    def _metrics(self, job: Job) -> dict[str, Any]:
        return last_metrics(self._runs[job.name].folder) or {"epoch": 0, "step": 0, "test_accuracy": None}

    def _epoch(self, job: Job) -> str:
        config = self._runs[job.name].config
        return f"{self._metrics(job)['epoch']}{'' if config.steps else f'/{config.epochs}'}"

    def _left(self, ended: int, running: Collection[Job]) -> str:
        """Say how long the rest will take, as far as that can be told."""
        done = float(ended)
        for job in running:
            config, metrics = self._runs[job.name].config, self._metrics(job)
            share = metrics["step"] / config.steps if config.steps else metrics["epoch"] / config.epochs
            done += min(share, 1)
        if not done or ended == len(self._runs):
            return ""
        passed = time.monotonic() - self._started
        return f", {duration(passed * (len(self._runs) - done) / done)} left"


def show(results: Results, quiet: bool = False, as_json: bool = False) -> None:
    """Print a result table and where it is kept; or one line, what went wrong on standard error; or results.json."""
    if as_json:
        click.echo((results.folder / "results.json").read_text(encoding="utf-8"), nl=False)
        return
    if quiet:
        for line in [*failures(results.errors), *warnings_of(results.cells), *logged_warnings(results.cells)]:
            click.echo(line, err=True)
        runs = sum(len(cell.runs) for cell in results.cells)
        finished = sum(cell.finished for cell in results.cells)
        elsewhere = f", others at work on {len(results.elsewhere)}" if results.elsewhere else ""
        click.echo(f"{finished} of {runs} runs finished{elsewhere}, results in {results.folder / 'results.md'}")
        return
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
            width = max(map(cell_len, [*words, *texts]), default=1)
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
