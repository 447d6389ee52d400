"""What the program must not do while it is examined: long work, processes, the network, much memory."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest import mock

STEPS = 100
"""A longer training is long work."""

MEMORY = 3 * 2**30
"""Bytes that the examples may take beside what the process has."""


class LongWork(BaseException):
    """Everything has been checked, and work would begin that takes long."""


def _begins(*positional: Any, **named: Any) -> NoReturn:
    raise LongWork


@contextmanager
def no_long_work() -> Iterator[None]:
    """Raise `LongWork` in the block where trials, the runs of a sweep, processes or a long training would begin."""
    import reweight_fit.trials
    from reweight_core.cli import resume_command, train_command
    from reweight_core.measure import bench, check_grad
    from reweight_core.training import loop
    from reweight_experiments import carry_out, slurm

    trained = loop.train_to_the_end

    def train_to_the_end(state: Any, *positional: Any, **named: Any) -> Any:
        parts = state.parts
        if sum(parts.expected_steps(stage) for stage in range(len(parts.stages))) > STEPS:
            raise LongWork
        return trained(state, *positional, **named)

    patched = {
        loop: {"train_to_the_end": train_to_the_end},
        train_command: {"launch": _begins},
        resume_command: {"launch": _begins},
        bench: {"_medians": _begins},
        check_grad: {"fresh_process": _begins},
        reweight_fit.trials.Trials: {"run": _begins},
        carry_out: {"_make": _begins},
        slurm: {"_submit": _begins},
    }
    with ExitStack() as stack:
        for place, replaced in patched.items():
            for name, value in replaced.items():
                stack.enter_context(mock.patch.object(place, name, value))
        yield


@contextmanager
def little_memory() -> Iterator[None]:
    """Let the process take no more than `MEMORY` in the block (on Linux)."""
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/status", encoding="ascii") as status:
        taken = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (taken + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def no_network() -> Iterator[None]:
    """Refuse every connection in the block."""

    def refused(*positional: Any, **named: Any) -> NoReturn:
        raise OSError("there is no network here")

    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "WANDB_MODE": "offline",
    }
    with (
        mock.patch.dict("os.environ", offline),
        mock.patch.object(socket.socket, "connect", refused),
        mock.patch.object(socket, "getaddrinfo", refused),
    ):
        yield
