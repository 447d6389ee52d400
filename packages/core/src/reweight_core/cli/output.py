"""Standard output that says in one line when it cannot be written, as into a file on a full disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

from reweight_core.errors import UserError


class _Output:
    """A text stream whose errors are told to the user."""

    def __init__(self, stream: Any):
        self._stream, self.failed = stream, False

    def write(self, text: str) -> int:
        with self._told():
            written: int = self._stream.write(text)
        return written

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = True
            if isinstance(error, BrokenPipeError):
                # whoever read it has gone
                raise
            raise UserError(f"standard output cannot be written: {error.strerror}") from error


@contextmanager
def told_output() -> Iterator[None]:
    """Raise `UserError` in the block where standard output cannot be written."""
    if sys.stdout is None:
        # it was closed before the program began
        yield
        return
    output = _Output(sys.stdout)
    try:
        with redirect_stdout(output):
            yield
            output.flush()
    finally:
        if output.failed:
            # Python would complain again when it flushes at exit
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
