"""Carrying out planned runs: the data of all are tried first, then each run is made in a process of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import attrs

from reweight_core import DataConfig, UserError, load_data, reason
from reweight_experiments.cells import PlannedRun, refuse_misfit
from reweight_experiments.folder import arguments_for, unfinished
from reweight_experiments.jobs import Ended, Job, python_command, run_all


class Watcher:
    """Is told how the runs get on; this one says nothing, and its subclasses show it."""

    def begin(self, finished: int, runs: Mapping[str, PlannedRun]) -> None:
        """Called before the first run, with the number of runs that were finished before and those to be made now.

        Args:
            finished: the number of runs of which nothing is left to do.
            runs: the others, by the name of their job.
        """

    def watch(self, ended: Sequence[Ended], running: Collection[Job]) -> None:
        """Called several times a second with the jobs that have ended so far and those that run."""


def carry_out(runs: Sequence[PlannedRun], out: Path, at_once: int, watcher: Watcher) -> dict[str, str]:
    """Make those runs that are not finished yet; return why some failed, by name of the run.

    Args:
        runs: all runs of the sweep.
        out: the folder of the sweep.
        at_once: how many runs are made at a time.
        watcher: is told how they get on.

    Raises:
        UserError: before any run, if a folder does not fit (`unfinished`), or an observer lacks its library.
    """
    missing = unfinished(runs)
    # imports torch
    from reweight_core import build_observers

    # a library that is missing is told once, and not by every run
    for config in {(run.config.observe, run.config.observer_options): run.config for run in missing}.values():
        build_observers(config)
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
    watcher.begin(len(runs) - len(missing), to_make)
    try:
        ended = run_all(jobs, at_once, watcher.watch)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"finished runs are kept in {out}; the same command goes on from there")
        raise
    return errors | {one.job.name: f"{one.error} (see {one.job.log})" for one in ended if one.error is not None}


def problems_of_data(runs: Sequence[PlannedRun]) -> dict[str, str]:
    """Prepare each kind of data once, as its first run would; return what is wrong, by name of the cell.

    What is downloaded or decoded on the way is there for the runs.
    """
    fields = [field.name for field in attrs.fields(DataConfig) if field.name != "seed"]
    by_data: dict[tuple[object, ...], list[PlannedRun]] = {}
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
                refuse_misfit(run.config, has_meta_set)
            except UserError as error:
                problems[run.cell.name] = str(error)
    return problems
