"""Joining the processes of a run: torch.distributed's process group, as torchrun or the launcher describes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from reweight_core.errors import LostProcessError, UserError, reason
from reweight_core.machine.launched import LAUNCHER, MEETING, Launched
from reweight_core.machine.together import ALONE, Together

LIMIT = timedelta(hours=2)
"""How long a process waits for the others; process 0 alone evaluates meanwhile."""


@contextmanager
def joined(processes: int, device: str, sync_batchnorm: bool = False) -> Iterator[Together]:
    """Give this process of a run inside the block; on GPUs each process has its own.

    A process group that exists already is used, and left as it is.

    Args:
        processes: their number (``--processes``).
        device: what ``--device`` says.
        sync_batchnorm: as for `Together`.

    Raises:
        UserError: if so many were not started.
    """
    if processes == 1:
        yield ALONE
        return
    if dist.is_initialized():
        _check(processes, dist.get_world_size())
        yield Together(dist.get_rank(), processes, sync_batchnorm=sync_batchnorm)
        return
    launched = Launched.here()
    _check(processes, 1 if launched is None else launched.world_size)
    assert launched is not None, "one process is not several"
    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        if launched.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"--processes {processes}: this machine has {torch.cuda.device_count()} GPUs, and each process needs "
                "one; give fewer, or --device cpu"
            )
        torch.cuda.set_device(launched.local_rank)
    try:
        dist.init_process_group(
            "nccl" if on_gpus else "gloo",
            store=_meeting(launched),
            rank=launched.rank,
            world_size=processes,
            timeout=LIMIT,
        )
    except RuntimeError as error:
        raise LostProcessError(f"the processes of the run did not find each other ({reason(error)[:80]})") from error
    try:
        yield Together(launched.rank, processes, sync_batchnorm=sync_batchnorm)
    finally:
        dist.destroy_process_group()


def _meeting(launched: Launched) -> Any:
    """Return where the processes meet that this program started; None where torchrun has told torch so."""
    if LAUNCHER not in os.environ:
        return None
    listening = os.environ.get(MEETING)
    return dist.TCPStore(  # type: ignore[attr-defined]  # torch does not say that it exports it
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        launched.world_size,
        is_master=launched.rank == 0,
        timeout=LIMIT,
        wait_for_workers=False,
        master_listen_fd=None if listening is None else int(listening),
    )


def _check(processes: int, started: int) -> None:
    if processes != started:
        raise UserError(
            f"--processes {processes}: {started} {'was' if started == 1 else 'were'} started; start them by reweight "
            f"train --processes {processes}, or by torchrun --nproc-per-node {processes} -m reweight_core train"
        )
