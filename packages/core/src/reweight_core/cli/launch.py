"""Starting the processes of a run as torchrun does, with one line of what went wrong in any of them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from reweight_core.errors import LostProcessError, UserError
from reweight_core.machine.launched import Launched

PR_SET_PDEATHSIG = 1
"""Of <sys/prctl.h>."""

_TELLS = "REWEIGHT_LAUNCHER_TELLS"
"""Environment variable: set where what started a process tells of its errors."""


def launch(processes: int) -> None:
    """Start this very command in several processes, and wait for them; exit as they do.

    Args:
        processes: their number.

    Raises:
        UserError: in place of what ended them.
    """
    # torch only here: what it needs is as much as training itself does
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from reweight_core.machine.device import usable_cpus

    # it tells every process's end in many lines
    logging.disable(logging.CRITICAL)
    os.environ[_TELLS] = "1"
    # as torchrun does, but with all processors in use
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"reweight-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    arguments: Sequence[str] = click.get_current_context().find_root().obj or sys.argv[1:]
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "reweight_core", *arguments)
    except SignalException:
        # process 0 has said so
        sys.exit(130)
    except ChildFailedError as failed:
        raise _FailedError(*_cause(failed.failures)) from None
    finally:
        logging.disable(logging.NOTSET)
        # torch's agent has put its own in their place
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


class _FailedError(UserError):
    """What ended the processes of a run, and their exit status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def _cause(failures: Mapping[int, Any]) -> tuple[str, int]:
    """Return what ended a run, and the exit status, from torch's record of each process that failed, by rank."""
    told: list[tuple[str, int]] = []
    lost: list[tuple[str, int]] = []
    for rank, failure in sorted(failures.items()):
        if isinstance(failure.message, dict):
            about = failure.message["extraInfo"]
            (lost if about["lost"] else told).append((failure.message["message"], about["status"]))
        elif failure.exitcode < 0 and failure.signal_name() != "SIGTERM":
            by = f"process {rank} of the run was ended by {failure.signal_name()}"
            told.append((f"{by}; reweight resume RUN goes on from the last checkpoint", 2))
    first = next(iter(failures.values()))
    return next(iter(told + lost), (f"a process of the run ended with exit status {first.exitcode}", 2))


def end_with_launcher() -> None:
    """Let this process end when the one that started it by `launch` does, however that was (Linux)."""
    if _TELLS in os.environ and Launched.here() is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def note_failure(message: str, status: int, error: BaseException) -> bool:
    """Note for whoever started this process what ends it; return whether that one tells the user."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if Launched.here() is None or not file:
        return False
    about = {"timestamp": str(int(time.time())), "status": status, "lost": isinstance(error, LostProcessError)}
    try:
        Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": about}}), encoding="utf-8")
    except OSError:
        return False
    return _TELLS in os.environ
