"""How the C library treats memory that a step on the CPU has freed."""

from __future__ import annotations

import ctypes
import os
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_TRIM_THRESHOLD, _LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 * 2**20


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
