"""What a step frees must be there for the next step without new page faults."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from reweight_core.machine.device import keep_freed_memory

told = keep_freed_memory() if sys.argv[1] == "keep" else False
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
SIZE = 16 * 2**20

def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(SIZE) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    for block in reversed(blocks):
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

use()
print(told, use())
"""


def run(mode, **settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | settings
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], env=environment, capture_output=True, text=True, check=True
    )
    told, faults = done.stdout.split()
    return told == "True", int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_freed_blocks_are_used_again_without_page_faults():
    _, faults_by_default = run("leave")
    told, faults = run("keep")
    if told:
        assert faults < faults_by_default / 10
    # settings from outside win
    assert not run("keep", MALLOC_TRIM_THRESHOLD_="131072")[0]
