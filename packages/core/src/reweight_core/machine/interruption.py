"""The signals that ask a program to end, noted so that it can end where nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

_USUAL: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals, and what Python does at each unless a program says otherwise."""


@attrs.define
class Interruption:
    """The number of the first signal that came, or None."""

    signal: int | None = None


@contextmanager
def interruption(heeded: bool = True) -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM inside the block; a second SIGINT ends it at once with `KeyboardInterrupt`.

    Where the program has handlers of its own, and in other threads than the main one, these signals stay as they are.

    Args:
        heeded: False to leave them as they are in any case.
    """
    noted, process = Interruption(), os.getpid()

    def note(number: int, frame: object) -> None:
        if os.getpid() != process:
            # one that was forked meanwhile has no run to save
            signal.signal(number, _USUAL[signal.Signals(number)])
            signal.raise_signal(number)
            return
        if number == signal.SIGINT and noted.signal is not None:
            raise KeyboardInterrupt
        noted.signal = noted.signal or number

    caught = []
    if heeded and threading.current_thread() is threading.main_thread():
        caught = [number for number, usual in _USUAL.items() if signal.getsignal(number) == usual]
    for number in caught:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number in caught:
            signal.signal(number, _USUAL[number])
