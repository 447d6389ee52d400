"""What a person sees of a search: a bar on a terminal or plain lines, a table and a few sentences at the end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from reweight_core import Progress, console, duration
from reweight_fit.report import Report
from reweight_fit.search import Outcome, Trial, Way


class SearchProgress:
    """Shows trials, then the last training; use it as a context manager around both.

    Args:
        jobs: how many trials are made at a time.
        quiet: whether to show nothing.

    Attributes:
        training: observes the last training.
    """

    def __init__(self, jobs: int = 1, quiet: bool = False) -> None:
        self.training = Progress(quiet)
        self._jobs, self._quiet = jobs, quiet
        self._taken, self._planned = 0.0, 0.0
        self._console, self._stack = console(), ExitStack()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials,"),
            TimeElapsedColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._left: list[Trial] = []

    def __enter__(self) -> SearchProgress:
        self._bar.start()
        self._stack.callback(self._bar.stop)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def begin(self, trials: Sequence[Trial]) -> None:
        """Show what is tried next."""
        self._left = list(trials)
        self._bar.reset(self._task, total=len(trials), description=self._next())

    def ended(self, trial: Trial, outcome: Outcome, accuracy: float) -> None:
        """Say what came of a trial."""
        what = f"{accuracy:.3f} of {len(outcome.positions)} right" if outcome.problem is None else outcome.problem
        self._taken += outcome.seconds
        self._say(f"{_words(trial.way)}: {what}, {outcome.seconds:.1f} s{self._rest()}")
        self._left.remove(trial)
        self._bar.update(self._task, advance=1, description=self._next())

    def planned(self, seconds: float) -> None:
        """Say how long it may take."""
        self._planned = seconds
        self._say(f"the search may take {duration(seconds)} of computing")

    def over(self) -> None:
        """Make room for the last training."""
        self._stack.close()
        self._stack.enter_context(self.training)

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        # print goes to a file line by line, and the console keeps the bar below it
        print(text, flush=True) if self._bar.disable else self._console.print(text, markup=False, highlight=False)

    def _rest(self) -> str:
        """Say how long the search may still take, once that is known; the last training is not in it."""
        left = (self._planned - self._taken) / self._jobs
        return f", at most {duration(left)} left" if left > 0 else ""

    def _next(self) -> str:
        return _words(self._left[0].way) if self._left else ""


def _words(way: Way) -> str:
    network = "" if way.network == "default" else f", {way.network}"
    return f"{way.candidate}{network}, {way.length:.2f} of the length"


def show(report: Report) -> None:
    """Print what was found."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for title in ("way to train", "length", "accuracy", "score", "lead", "seconds"):
        table.add_column(title, justify="left" if title == "way to train" else "right", no_wrap=True)
    for row in report.rows:
        name = row.name if row.network == "default" else f"{row.name}, {row.network}"
        figures = [
            f"{row.accuracy:.3f} ± {row.error:.3f}",
            f"{row.score:.3f}",
            f"{row.lead:+.3f} ± {row.lead_error:.3f}",
        ]
        figures = ["failed", "", ""] if row.problem is not None else figures
        table.add_row(
            f"{name}{' *' if row == report.winner else ''}", f"{row.length:.2f}", *figures, f"{row.seconds:.1f}"
        )
    screen = console()
    screen.print(table)
    screen.print(" ".join(report.sentences), soft_wrap=True)
    times = f"{report.seconds / report.plain_seconds:.1f} times a plain training"
    screen.print(f"the search took {report.seconds:.0f} s, {times}")
