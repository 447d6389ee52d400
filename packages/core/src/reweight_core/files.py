"""Writing files so that a reader finds either all of a file or none of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reweight_core.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text under a temporary name, flush it to disk, then rename it."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    flush(path.parent)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep every other process that asks for it out of a folder until the end (on systems that lock files).

    Args:
        folder: the folder, which must exist.
        what: how to call it if it is taken.

    Raises:
        UserError: if another process has it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{what}: another process is at work in it; wait for it, or stop it") from None
        yield
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Flush a written file or folder to disk (a folder cannot be opened on every system: then not)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
