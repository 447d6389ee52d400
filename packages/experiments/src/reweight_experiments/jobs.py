"""Running processes side by side, so that one that fails takes no other with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import attrs

import reweight_experiments.tied
from reweight_core import InterruptedRun, usable_cpus

STOP_SECONDS = 60.0
"""How long a process may take to end when it is asked to: it finishes a step and saves its run."""


@attrs.frozen(eq=False)
class Job:
    """A process to run.

    Attributes:
        name: what it is called.
        command: program and arguments.
        log: the file for its output, whose folder exists.
        environment: variables that it has beside those of this process.
        processes: how many processes it starts, which share its part of the processors.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = attrs.field(factory=dict)
    processes: int = 1


@attrs.frozen
class Ended:
    """A job that is over, after so many seconds; `error` is one line, None if it went well."""

    job: Job
    seconds: float
    error: str | None


def python_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command of this program with these arguments, in the interpreter that runs now.

    On Linux it ends when this process ends: it must not go on with what another process then takes over.
    """
    # like the console script, and unlike plain `python -m`, it does not search the current folder
    command = (sys.executable, "-P", "-m", "reweight_core", *arguments)
    if sys.platform != "linux":
        return command
    return (sys.executable, "-I", "-S", reweight_experiments.tied.__file__, str(os.getpid()), *command)


class Processes:
    """Processes side by side, so that one that fails takes no other with it.

    Use it as a context manager: in the end, after an interrupt above all, it stops those that run.

    Args:
        at_once: how many jobs there will be at a time. Each process gets its share of the processors' threads.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
        self._never_began: list[Ended] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(self.running)

    @property
    def running(self) -> list[Job]:
        """The jobs that run."""
        return list(self._running)

    def start(self, job: Job) -> None:
        """Begin a job."""
        environment = {**_environment(self._at_once * job.processes), **job.environment}
        try:
            with open(job.log, "wb") as log:
                process = subprocess.Popen(
                    job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
                )
        except OSError as problem:
            self._never_began.append(Ended(job, 0.0, str(problem)))
        else:
            self._running[job] = process, time.monotonic()

    def ended(self) -> list[Ended]:
        """Return the jobs that have ended since this was last asked."""
        ended, self._never_began = self._never_began, []
        for job, (process, started) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[job]
                ended.append(Ended(job, time.monotonic() - started, _error(process.returncode, job.log)))
        return ended

    def stop(self, jobs: Sequence[Job]) -> None:
        """Stop jobs that run; they do not count as ended."""
        processes = [self._running.pop(job)[0] for job in jobs]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self, job: Job) -> None:
        """Kill a job, which is not to write anything more; it does not count as ended."""
        process = self._running.pop(job)[0]
        process.kill()
        process.wait()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let the signals of batch systems and closed terminals end this program so that its processes end too."""

    def leave(number: int, frame: object) -> NoReturn:
        raise InterruptedRun(number)

    caught = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, leave) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(processes: int) -> dict[str, str]:
    if processes < 2 or "OMP_NUM_THREADS" in os.environ:
        return dict(os.environ)
    return os.environ | {"OMP_NUM_THREADS": str(max(1, usable_cpus() // processes))}


def _error(status: int, log: Path) -> str | None:
    """Return why a process failed, in one line: its own words where it had any."""
    if status == 0:
        return None
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}{' (is the memory full?)' if name == 'SIGKILL' else ''}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    # of a traceback, the last line says most
    return (own or lines or [f"exit status {status}"])[-1].strip()
