"""What the commands of many runs share: carrying the runs out, and showing the table of their results."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import attrs
from rich import box
from rich.console import Console
from rich.table import Table

from reweight_core.config.compatibility import refuse_misfits
from reweight_core.config.run_config import DataConfig, RunConfig
from reweight_core.errors import UserError, reason
from reweight_core.files import locked
from reweight_core.plugins import registry
from reweight_experiments.cells import Run
from reweight_experiments.folder import arguments_for, unfinished
from reweight_experiments.jobs import Job, python_command, run_all
from reweight_experiments.progress import SweepProgress
from reweight_experiments.report import Report


def carry_out(runs: Sequence[Run], out: Path, at_once: int) -> dict[str, str]:
    """Make those runs that are not finished yet; return why some failed, by name of the run.

    Raises:
        UserError: before any run, if a folder does not fit (`unfinished`).
    """
    missing = unfinished(runs)
    if not missing:
        return {}
    problems = problems_of_data(missing)
    errors = {run.name: problems[run.cell.name] for run in missing if run.cell.name in problems}
    to_make = {run.name: run for run in missing if run.name not in errors}
    jobs = []
    for name, run in to_make.items():
        try:
            run.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{run.folder.parent}: {error}") from error
        jobs.append(Job(name, python_command(arguments_for(run)), run.folder.with_name(f"{run.folder.name}.log")))
    if kept := len(runs) - len(missing):
        print(f"{kept} of {len(runs)} runs are finished already", flush=True)
    try:
        with _stopped_by_signals(), SweepProgress(to_make) as progress:
            ended = run_all(jobs, at_once, progress.watch)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"finished runs are kept in {out}; the same command goes on from there")
        raise
    return errors | {one.job.name: f"{one.error} (see {one.job.log})" for one in ended if one.error is not None}


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let the signals of batch systems and closed terminals end this program so that its processes end too."""

    def leave(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    caught = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, leave) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def place_for(out: Path) -> Iterator[None]:
    """Make the folder of the runs, and keep every other sweep out of it until the end.

    Raises:
        UserError: if it cannot be made, or another sweep works in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error}") from error
    with locked(out, f"--out {out}"):
        yield


def show(report: Report, out: Path) -> None:
    """Print a result table and where it is kept."""
    console = Console(markup=False, emoji=False, highlight=False)
    for line in report.heading:
        console.print(line, soft_wrap=True)
    table = Table(box=box.SIMPLE)
    for title in report.columns:
        table.add_column(title, overflow="fold", no_wrap=title in report.unbroken)
    for row in report.rows:
        table.add_row(*row)
    console.print(table)
    for line in report.remarks:
        console.print(line, soft_wrap=True)
    console.print(f"also in {out / 'results.md'}, results.csv and results.json", soft_wrap=True)


def problems_of_data(runs: Sequence[Run]) -> dict[str, str]:
    """Prepare each kind of data once, as its first run would; return what is wrong, by name of the cell.

    What is downloaded or decoded on the way is there for the runs.
    """
    from reweight_core.config.load_data import load_data

    fields = [field.name for field in attrs.fields(DataConfig) if field.name != "seed"]
    by_data: dict[tuple[object, ...], list[Run]] = {}
    for run in {run.cell.name: run for run in reversed(runs)}.values():
        by_data.setdefault(tuple(getattr(run.config, name) for name in fields), []).append(run)
    problems: dict[str, str] = {}
    for group in by_data.values():
        try:
            has_meta_set = load_data(group[0].config).meta is not None
        except UserError as error:
            problems |= {run.cell.name: str(error) for run in group}
            continue
        except Exception as error:
            problems |= {run.cell.name: reason(error) for run in group}
            continue
        for run in group:
            try:
                _refuse_missing_meta_set(run.config, has_meta_set)
            except UserError as error:
                problems[run.cell.name] = str(error)
    return problems


def _refuse_missing_meta_set(config: RunConfig, has_meta_set: bool) -> None:
    components = {name: registry.find("component", name) for name in config.with_}
    refuse_misfits(config, registry.find("method", config.method), components, has_meta_set)
