"""The runs of a shared folder that this process makes: which it may claim, which it holds, what became of them."""

from __future__ import annotations

import json
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from reweight_core import UserError, write_json
from reweight_experiments.cells import PlannedRun
from reweight_experiments.folder import is_finished
from reweight_experiments.leases import (
    LAPSE_SECONDS,
    RENEW_SECONDS,
    Lease,
    Leases,
    is_taken,
    look_again,
    repeated,
    with_sleep,
)


@attrs.frozen
class Outcome:
    """What became of the runs that a process wanted made.

    Attributes:
        errors: why runs failed, by name, here or elsewhere.
        elsewhere: names of those that are not over: other processes are at work on them.
    """

    errors: Mapping[str, str]
    elsewhere: Collection[str]


class Claims:
    """Shares runs with other processes on the same folder, so that each run is made by one of them.

    What failed before may be tried again, once by every process; what fails from now on is over.

    Args:
        runs: those to be made.
        clock: as for `Leases`.
        own_clock: as for `Leases`.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        clock: Callable[[], float] = time.monotonic,
        own_clock: Callable[[], float] = with_sleep,
    ) -> None:
        self._clock, self._leases = clock, Leases(clock, own_clock)
        self._runs = {run.name: run for run in runs}
        self._open = dict(self._runs)
        self._held: dict[str, Lease] = {}
        self._lost: set[str] = set()
        # one thread at a time renews a lease or gives it back
        self._lock = threading.Lock()
        self._problem: BaseException | None = None
        self._errors: dict[str, str] = {}
        self._postponed: dict[str, float] = {}
        self._old_failures = {run.name: _failure(run) for run in runs}
        # when it was last seen that none is free, and asked whether others are alive
        self._nothing_free_at = self._asked = -RENEW_SECONDS
        self.ended_elsewhere = 0

    @property
    def open(self) -> Collection[str]:
        """Names of the runs that are not over, as far as is known."""
        return self._open.keys()

    def next(self) -> PlannedRun | None:
        """Claim a run that nobody makes; None if none is free, which is looked after every `RENEW_SECONDS`."""
        if self._clock() - self._nothing_free_at < RENEW_SECONDS:
            return None
        for name, run in list(self._open.items()):
            postponed = self._clock() - self._postponed.get(name, -LAPSE_SECONDS) < LAPSE_SECONDS
            if name in self._held or postponed or self._is_over(run):
                continue
            try:
                lease = self._leases.take(run.folder)
            except UserError as error:
                self._errors[name] = str(error)
                del self._open[name]
                continue
            if lease is None:
                continue
            self._held[name] = lease
            # while this process looked, another may have made it
            if self._is_over(run):
                self.let_go(name)
                continue
            with suppress(OSError):
                _failure_file(run).unlink()
            return run
        self._nothing_free_at = self._clock()
        return None

    def end(self, run: PlannedRun, error: str | None) -> bool:
        """Note that a run that this process holds has ended, and why if it failed.

        Returns:
            Whether it was held to the last; another process may have taken it over while this machine slept, and that
            one then tells what becomes of it.
        """
        self._renew(run.name)
        if run.name in self._lost:
            self.let_go(run.name)
            return False
        del self._open[run.name]
        if error is not None:
            self._errors[run.name] = error
            try:
                write_json(_failure_file(run), {"error": error, "token": uuid.uuid4().hex})
            except OSError as problem:
                warnings.warn(f"{_failure_file(run)}: cannot be written ({problem})", stacklevel=2)
        self.let_go(run.name)
        self._nothing_free_at = -RENEW_SECONDS
        return True

    def postpone(self, run: PlannedRun) -> None:
        """Leave a run that this process holds to others, and look at it again when their leases might have lapsed."""
        self._postponed[run.name] = self._clock()
        self.let_go(run.name)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew what is held in a thread until the end."""

        def renew() -> None:
            try:
                self.renew()
            except BaseException as problem:
                # told by `lost`: nothing is renewed from now on
                self._problem = problem
                raise

        with repeated(renew):
            yield

    def renew(self) -> None:
        """Renew what is held."""
        for name in list(self._held):
            self._renew(name)

    def lost(self) -> list[str]:
        """Return the names of runs that this process holds no more.

        What makes them is to be stopped, and then they are to be let go (`let_go`).
        """
        if self._problem is not None:
            raise self._problem
        for name, lease in self._held.items():
            if self._leases.own_clock() - lease.renewed >= 2 * RENEW_SECONDS:
                # the machine slept, or the thread waits for a file
                self._renew(name)
        return list(self._lost)

    def _renew(self, name: str) -> None:
        with self._lock:
            # one that is lost stays so, whatever becomes of the file
            if name in self._held and name not in self._lost and not self._leases.renew(self._held[name]):
                self._lost.add(name)

    def others_are_alive(self, since: float) -> bool:
        """Whether all open runs are held by others that have shown themselves after a moment of the clock.

        False if this was asked less than `RENEW_SECONDS` ago.
        """
        if self._clock() - max(since, self._asked) < RENEW_SECONDS:
            return False
        self._asked = self._clock()
        return all(self._leases.was_renewed_after(since, run.folder) for run in self._open.values())

    def claimed(self) -> list[str]:
        """Return the names of open runs that some process has claimed."""
        return [name for name, run in self._open.items() if is_taken(run.folder)]

    def look(self) -> dict[str, str | None]:
        """Look at all open runs; return those that other processes have ended, and why they failed."""
        over = [name for name, run in list(self._open.items()) if self._is_over(run)]
        return {name: self._errors.get(name) for name in over}

    def give_back(self) -> None:
        """Let others have what this process still holds."""
        for name in list(self._held):
            self.let_go(name)

    def outcome(self) -> Outcome:
        """Look at all runs once more; what failed may have been made by a process that began later."""
        self.look()
        errors = {name: error for name, error in self._errors.items() if not _is_made(self._runs[name])}
        return Outcome(errors, list(self._open))

    def let_go(self, name: str) -> None:
        """Give back the lease of a run."""
        with self._lock:
            self._lost.discard(name)
            self._leases.give_back(self._held.pop(name))

    def _is_over(self, run: PlannedRun) -> bool:
        """Whether another process has ended a run."""
        look_again(run.folder.parent)
        look_again(run.folder)
        failure = _failure(run)
        try:
            if not is_finished(run):
                if failure is None or failure == self._old_failures[run.name]:
                    return False
                self._errors[run.name] = _error_in(failure)
        except UserError as error:
            self._errors[run.name] = str(error)
        del self._open[run.name]
        self.ended_elsewhere += 1
        return True


def _is_made(run: PlannedRun) -> bool:
    try:
        return is_finished(run)
    except UserError:
        return False


def _failure_file(run: PlannedRun) -> Path:
    return run.folder.with_name(f"{run.folder.name}.failed")


def _failure(run: PlannedRun) -> str | None:
    """Return what was written when a run failed, each time something else; None if it has not."""
    try:
        return _failure_file(run).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _error_in(failure: str) -> str:
    try:
        return str(json.loads(failure)["error"])
    except (ValueError, KeyError, TypeError):
        return "failed in another process, which could not say why"
