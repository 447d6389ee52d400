"""Carrying out planned runs: the data of all are tried first, then each run is made in a process of its own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import attrs

from reweight_core import DataConfig, UserError, load_data, reason
from reweight_experiments.cells import PlannedRun, refuse_misfit
from reweight_experiments.claims import Claims, Outcome
from reweight_experiments.folder import AtWorkError, arguments_for, make_folder, unfinished
from reweight_experiments.jobs import Ended, Job, Processes, python_command
from reweight_experiments.leases import Leases

POLL_SECONDS = 0.2

_TAKEN_OVER = "its lease could not be renewed for a while, or another process has taken it over meanwhile"


class Watcher:
    """Is told how the runs get on; this one says nothing, and its subclasses show it."""

    def begin(self, finished: int, runs: Mapping[str, PlannedRun]) -> None:
        """Called before the first run, with the number of runs that were finished before and those to be made now.

        Args:
            finished: the number of runs of which nothing is left to do.
            runs: the others, by the name of their job.
        """

    def watch(self, ended: Sequence[Ended], running: Collection[Job], elsewhere: int) -> None:
        """Called several times a second.

        Args:
            ended: the jobs that have ended so far.
            running: those that run.
            elsewhere: how many of the runs other processes on the same folder have ended.
        """

    def wait_for(self, names: Collection[str]) -> None:
        """Called when nothing is left to claim, with the runs that others are at work on, or were when they died."""


@contextmanager
def carry_out(
    runs: Sequence[PlannedRun], out: Path, slots: Sequence[Mapping[str, str]], watcher: Watcher
) -> Iterator[Outcome]:
    """Make those runs that are not finished yet and that no other process makes; give what became of all.

    Until the end of the block no other process writes results in the folder.

    Args:
        runs: all runs of the sweep.
        out: the folder of the sweep.
        slots: for each run that is made at a time, the variables of its environment.
        watcher: is told how they get on.

    Raises:
        UserError: before any run, if the folder cannot be made, one in it does not fit (`unfinished`), or an observer
            lacks its library.
    """
    make_folder(out, f"--out {out}")
    missing = unfinished(runs)
    # imports torch
    from reweight_core import build_observers

    # a library that is missing is told once, and not by every run
    for config in {(run.config.observe, run.config.observer_options): run.config for run in missing}.values():
        build_observers(config)
    leases = Leases()
    # two downloads of one file would spoil each other
    downloads = any(run.cell.values.get("download") for run in missing)
    with leases.held(out / "data") if downloads else nullcontext():
        problems = problems_of_data(missing)
    to_make = {run.name: run for run in missing if run.cell.name not in problems}
    for folder in {run.folder.parent for run in to_make.values()}:
        make_folder(folder, str(folder))
    watcher.begin(len(runs) - len(missing), to_make)
    claims = Claims(list(to_make.values()))
    try:
        _make(claims, slots, watcher)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"finished runs are kept in {out}; the same command goes on from there")
        raise
    finally:
        claims.give_back()
    with leases.held(out / "results"):
        outcome = claims.outcome()
        unread = {run.name: problems[run.cell.name] for run in unfinished(missing) if run.cell.name in problems}
        yield attrs.evolve(outcome, errors={**unread, **outcome.errors})


def _make(claims: Claims, slots: Sequence[Mapping[str, str]], watcher: Watcher) -> None:
    """Make runs until none is left, or others are at work on all that are."""
    free = list(slots)
    started: dict[Job, tuple[PlannedRun, Mapping[str, str]]] = {}
    ended: list[Ended] = []
    idle_since = None
    with claims.renewed(), Processes(min(len(slots), len(claims.open))) as processes:
        while claims.open:
            while free and (run := claims.next()) is not None:
                log = run.folder.with_name(f"{run.folder.name}.log")
                job = Job(run.name, (), log, free[0], run.config.processes)
                try:
                    job = attrs.evolve(job, command=python_command(arguments_for(run)))
                except AtWorkError:
                    # left over of a process that was not heard of for a while; it ends or goes on
                    claims.postpone(run)
                    continue
                except UserError as error:
                    ended.append(Ended(job, 0.0, str(error)))
                    claims.end(run, str(error))
                    continue
                started[job] = run, free.pop(0)
                processes.start(job)
            # others that are alive end what they have begun; what the dead have begun lapses, and is claimed
            if started:
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
                if claims.open:
                    watcher.wait_for(claims.open)
            elif claims.others_are_alive(idle_since):
                return
            time.sleep(POLL_SECONDS)
            # before anything else: this machine may have slept
            for name in claims.lost():
                (job,) = (job for job in started if job.name == name)
                free.append(started.pop(job)[1])
                processes.kill(job)
                claims.let_go(name)
                warnings.warn(f"{name}: is stopped here, because {_TAKEN_OVER}", stacklevel=2)
            for one in processes.ended():
                run, slot = started.pop(one.job)
                free.append(slot)
                if claims.end(run, None if one.error is None else f"{one.error} (see {one.job.log})"):
                    ended.append(one)
                else:
                    warnings.warn(f"{run.name}: does not count here, because {_TAKEN_OVER}", stacklevel=2)
            watcher.watch(ended, processes.running, claims.ended_elsewhere)


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
