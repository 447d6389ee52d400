"""Running processes side by side, so that one that fails takes no other with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import attrs

from reweight_core import usable_cpus

POLL_SECONDS = 0.2


@attrs.frozen
class Job:
    """A process to run.

    Attributes:
        name: what it is called.
        command: program and arguments.
        log: the file for its output, whose folder exists.
    """

    name: str
    command: tuple[str, ...]
    log: Path


@attrs.frozen
class Ended:
    """A job that is over, after so many seconds; `error` is one line, None if it went well."""

    job: Job
    seconds: float
    error: str | None


def python_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command of this program with these arguments, in the interpreter that runs now."""
    # like the console script, and unlike plain `python -m`, it does not search the current folder
    return (sys.executable, "-P", "-m", "reweight_core", *arguments)


def run_all(
    jobs: Sequence[Job], at_once: int, watch: Callable[[Sequence[Ended], Collection[Job]], None]
) -> list[Ended]:
    """Run all jobs, `at_once` at a time; return how they ended, in that order.

    Args:
        jobs: in the order in which they begin.
        at_once: how many processes there are at a time. Each gets its share of the processors' threads.
        watch: called several times a second with the jobs that have ended so far and those that run.

    Whatever is raised meanwhile, an interrupt above all, stops the running processes first.
    """
    environment = _environment(min(at_once, len(jobs)))
    waiting = list(reversed(jobs))
    running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
    ended: list[Ended] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop()
                try:
                    running[job] = _start(job, environment), time.monotonic()
                except OSError as problem:
                    ended.append(Ended(job, 0.0, str(problem)))
            time.sleep(POLL_SECONDS)
            for job, (process, started) in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    error = _error(process.returncode, job.log)
                    ended.append(Ended(job, time.monotonic() - started, error))
            watch(ended, running)
    finally:
        _stop([process for process, _ in running.values()])
    return ended


@contextmanager
def stopped_by_signals() -> Iterator[None]:
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


def _environment(processes: int) -> dict[str, str]:
    if processes < 2 or "OMP_NUM_THREADS" in os.environ:
        return dict(os.environ)
    return os.environ | {"OMP_NUM_THREADS": str(max(1, usable_cpus() // processes))}


def _start(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with open(job.log, "wb") as log:
        return subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
