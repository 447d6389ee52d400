"""Starting the processes of a run as torchrun does, with one line of what went wrong in any of them."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import click

from reweight_core.errors import LostProcessError, UserError
from reweight_core.machine.device import usable_cpus
from reweight_core.machine.launched import LAUNCHER, MEETING, Launched

PR_SET_PDEATHSIG = 1
"""Of <sys/prctl.h>."""

_TELLS = "REWEIGHT_TELLS"
"""Environment variable: the descriptor that the launcher reads a process's error from."""

_POLL_SECONDS = 0.05

FAILED_SECONDS = 10.0
"""How long processes may go on when one has failed: they notice by themselves when they next exchange something."""

STOP_SECONDS = 300.0
"""How long processes may take to end after a signal: they finish a step, and process 0 saves."""


def launch(processes: int) -> None:
    """Start this very command in several processes, and wait for them; exit as they do.

    SIGINT, SIGTERM and SIGHUP are passed on to them once; a second SIGINT kills them.

    Args:
        processes: their number.

    Raises:
        UserError: in place of what ended them.
    """
    if sys.platform == "win32":
        raise UserError(f"--processes {processes}: Windows passes no sockets on; start the processes by torchrun")
    arguments: Sequence[str] = click.get_current_context().find_root().obj or sys.argv[1:]
    started: list[_Process] = []
    with _signals_noted() as signals:
        try:
            with socket.create_server(("127.0.0.1", 0)) as meeting:
                for rank in range(processes):
                    started.append(_Process.start(Launched(rank, processes, rank, processes), arguments, meeting))
            stopped_by = _wait(started, signals)
        finally:
            for process in started:
                process.end()
    failed = [process for process in started if process.status]
    told = [process for process in failed if process.error is not None and not process.error.lost]
    if stopped_by is not None and failed and not told:
        if started[0].status != 128 + stopped_by:
            # process 0 had no time to say so
            click.echo(f"ended by {stopped_by.name}; reweight resume RUN goes on from the last checkpoint", err=True)
        sys.exit(128 + stopped_by)
    if failed:
        raise _FailedError(*_cause(failed))


class _FailedError(UserError):
    """What ended the processes of a run, and their exit status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


@attrs.frozen
class _Told:
    """What a process told of its error.

    Attributes:
        message: a line.
        status: the exit status that goes with it.
        lost: whether it is only that another process has ended.
    """

    message: str
    status: int
    lost: bool


@attrs.define(eq=False)
class _Process:
    """A process of a run that this one started.

    Attributes:
        rank: its number.
        child: the process.
        tells: the descriptor that it tells its error to.
        killed: whether this process killed it.
        error: its error, once it has ended (`note_failure`); None if it told none.
    """

    rank: int
    child: subprocess.Popen[bytes]
    tells: int
    killed: bool = False
    error: _Told | None = None

    @classmethod
    def start(cls, launched: Launched, arguments: Sequence[str], meeting: socket.socket) -> _Process:
        """Start it.

        Args:
            launched: which of the processes it is.
            arguments: those of the program.
            meeting: where the processes meet: a socket, on which process 0 listens.
        """
        host, port = meeting.getsockname()
        reads, tells = os.pipe()
        # as torchrun does, but with all processors in use
        threads = {"OMP_NUM_THREADS": str(max(1, usable_cpus() // launched.world_size))}
        environment = threads | os.environ | launched.variables()
        environment |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
        environment |= {LAUNCHER: str(os.getpid()), _TELLS: str(tells)}
        if launched.rank == 0:
            environment[MEETING] = str(meeting.fileno())
        child = subprocess.Popen(
            (sys.executable, "-P", "-m", "reweight_core", *arguments),
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=(tells, meeting.fileno()) if launched.rank == 0 else (tells,),
            # a terminal's signals come once, from this process
            start_new_session=True,
        )
        os.close(tells)
        return cls(launched.rank, child, reads)

    @property
    def status(self) -> int | None:
        """Its exit status, below 0 the signal that ended it; None while it runs."""
        return self.child.poll()

    def end(self) -> None:
        """Kill it if it still runs, and read what it told."""
        if self.status is None:
            self.killed = True
            self.child.kill()
            self.child.wait()
        os.set_blocking(self.tells, False)
        try:
            told = os.read(self.tells, 2**16)
        except BlockingIOError:
            # a process of its own still has the other end
            told = b""
        os.close(self.tells)
        self.error = _Told(**json.loads(told)) if told else None


@contextmanager
def _signals_noted() -> Iterator[list[signal.Signals]]:
    """Give a list to which the signals that ask this program to end are added; those that it ignores it still does."""
    noted: list[signal.Signals] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, lambda caught, frame: noted.append(signal.Signals(caught)))
    try:
        yield noted
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def _wait(processes: Sequence[_Process], signals: list[signal.Signals]) -> signal.Signals | None:
    """Wait until all processes have ended, or are to be killed; return the signal that was passed on to them, if any.

    Args:
        processes: those that were started.
        signals: the signals that this process has got so far; more are added meanwhile.
    """
    stopped_by, until, heeded, fatal = None, math.inf, 0, False
    while time.monotonic() < until and any(process.status is None for process in processes):
        for number in signals[heeded:]:
            heeded += 1
            if stopped_by is None:
                stopped_by = number
                until = min(until, time.monotonic() + STOP_SECONDS)
                for process in processes:
                    process.child.send_signal(number)
            elif number == signal.SIGINT:
                return stopped_by
        # after a signal, whoever ends by itself has done what there was to do
        if not fatal and any((p.status or 0) < 0 or (p.status and stopped_by is None) for p in processes):
            fatal = True
            until = min(until, time.monotonic() + FAILED_SECONDS)
        time.sleep(_POLL_SECONDS)
    return stopped_by


def _cause(failed: Sequence[_Process]) -> tuple[str, int]:
    """Return what ended a run, and the exit status, from the processes that failed."""
    told: list[tuple[str, int]] = []
    lost: list[tuple[str, int]] = []
    silent: list[tuple[str, int]] = []
    for process in failed:
        status = process.status or 0
        if process.error is not None:
            (lost if process.error.lost else told).append((process.error.message, process.error.status))
        elif status < 0 and not process.killed:
            by = f"process {process.rank} of the run was ended by {signal.Signals(-status).name}"
            told.append((f"{by}; reweight resume RUN goes on from the last checkpoint", 2))
        elif not process.killed:
            silent.append((f"process {process.rank} of the run ended with exit status {status}", 2))
    return (told + lost + silent)[0]


def end_with_launcher() -> None:
    """Let this process end when the one that started it by `launch` does, however that was (Linux)."""
    if LAUNCHER not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # it may have ended before
    if os.getppid() != int(os.environ[LAUNCHER]):
        sys.exit(2)


def note_failure(message: str, status: int, error: BaseException) -> bool:
    """Note for whoever started this process what ends it; return whether that one tells the user."""
    if _TELLS in os.environ:
        told = _Told(message, status, lost=isinstance(error, LostProcessError))
        os.write(int(os.environ[_TELLS]), json.dumps(attrs.asdict(told)).encode())
        return True
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        # torchrun shows it
        noted = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
        try:
            Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(noted), encoding="utf-8")
        except OSError:
            return False
    return False
