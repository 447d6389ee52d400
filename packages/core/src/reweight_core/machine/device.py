"""The device of a run, and what this machine computes with."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reweight_core.errors import UserError
from reweight_core.machine.launched import Launched

if TYPE_CHECKING:
    import torch

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_TRIM_THRESHOLD, _LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 * 2**20


def resolve_device(name: str) -> torch.device:
    """Return the device that ``--device`` names.

    Raises:
        UserError: if there is no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu")
    if device == torch.device("cuda") and torch.distributed.is_available() and torch.distributed.is_initialized():
        # one of several processes, each of which has a GPU
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: only cpu and cuda are supported")
    return device


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the order of images and kernels in memory that ``--channels-last`` asks for."""
    import torch

    return torch.channels_last if channels_last else torch.contiguous_format


def usable_cpus() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpus_of_this_process() -> int:
    """Return this process's share of `usable_cpus`, where torchrun started several on this machine."""
    launched = Launched.here()
    return max(1, usable_cpus() // (1 if launched is None else launched.local_world_size))


def total_memory() -> float:
    """Return the machine's memory in bytes; infinity where that is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def cpu_name() -> str:
    """Return the processor's name, or its architecture where no name is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def keep_freed_memory() -> bool:
    """Let the C library keep what a step frees for the next one; return whether it could be told.

    It gives large freed blocks back to the system otherwise, and each step then pays to get its memory again (a tenth
    of a step of ResNet-32). Whoever sets MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_ decides instead, and only
    Linux with glibc has such settings.
    """
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    )
