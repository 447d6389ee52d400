"""Runs a command so that it ends when the process that started it ends, however that was (Linux): PID COMMAND...

It is run as a script, by itself.
"""

import ctypes
import os
import signal
import sys

# <sys/prctl.h>
PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # it may have ended before
    if os.getppid() == int(sys.argv[1]):
        os.execv(sys.argv[2], sys.argv[2:])
