"""Measuring time and memory of steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from reweight_core.errors import UserError


def fresh_process(module: str, argument: str) -> Any:
    """Run ``python -m module argument`` and return the JSON of its last line.

    Raises:
        UserError: if it fails, with the last line of what it says.
    """
    # large blocks then go back to the system when they are freed, so that a high-water mark means what was in use
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}
    command = [sys.executable, "-m", module, argument]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["a measuring process failed"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def high_water_mark(device: torch.device) -> Iterator[list[int | None]]:
    """Measure how far memory rises above where it is at the beginning of the block."""
    result: list[int | None] = [None]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield result
        result[0] = torch.cuda.max_memory_allocated(device) - before
    elif sys.platform == "linux":
        # 5 sets the mark back to what is resident now
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _status("VmHWM")
        yield result
        result[0] = _status("VmHWM") - before
    else:
        yield result


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def elapsed(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that the device needs for a call, by CUDA events on a GPU."""
    if device.type != "cuda":
        started = time.perf_counter()
        function()
        return time.perf_counter() - started
    stream = torch.cuda.current_stream(device)
    torch.cuda.synchronize(device)
    begin = stream.record_event(torch.cuda.Event(enable_timing=True))
    function()
    end = stream.record_event(torch.cuda.Event(enable_timing=True))
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def peak_memory(device: torch.device) -> int | None:
    """Return the most memory used so far, in bytes: of the GPU, or of this process; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    # kilobytes everywhere but on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
