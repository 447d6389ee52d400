"""Writing files so that a reader finds either all of a file or none of it."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reweight_core.errors import UserError


@contextmanager
def written_whole(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; what is written there is flushed to disk and then becomes `path`.

    If writing fails, the temporary file is removed and `path` stays as it was.

    Args:
        path: the file to write.
        shared: whether several processes may write it at the same time: each then has a temporary path of its own.
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        # a device would be a file ever after
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    partial = path.with_name(f"{path.name}.partial")
    # of a process that was killed
    partial.unlink(missing_ok=True)
    if shared:
        descriptor, name = tempfile.mkstemp(".partial", f"{path.name}.", path.parent)
        os.close(descriptor)
        partial = Path(name)
    try:
        with usual_permissions(partial):
            yield partial
        flush(partial)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    flush(path.parent)


@contextmanager
def usual_permissions(path: Path) -> Iterator[None]:
    """Give a file that is written in the block the permissions that it has now, or those that new files get.

    The library of safetensors makes files that nobody but their owner can read; and what it says of a full disk is
    raised as `OSError` here, like what Python says.
    """
    path.touch()
    permissions = path.stat().st_mode
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"(?:os error|Os \{ code:) (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(permissions)


def refuse_outputs(files: Mapping[str, Path | None]) -> None:
    """Refuse files that cannot be written, or of which one would be written over another, before work begins.

    Args:
        files: by the option that asks for them; None for none.

    Raises:
        UserError: if one is a folder, or lies in none that exists, or two are the same.
    """
    seen: dict[Path, str] = {}
    for flag, file in files.items():
        if file is None:
            continue
        try:
            fits = not file.is_dir() and file.absolute().parent.is_dir()
        except OSError as error:
            raise UserError(f"{flag} {file}: {error.strerror}") from error
        if not fits:
            raise UserError(f"{flag} {file}: must be a file in a folder that exists")
        before = seen.setdefault(file.absolute(), flag)
        if before != flag:
            raise UserError(f"{flag} {file}: is the file of {before} too; give another")


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``~/.cache/reweight``, or below ``$XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reweight"


def write_text(path: Path, text: str) -> None:
    """Write a text whole (`written_whole`)."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole (`written_whole`)."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return what `write_json` writes."""
    return json.dumps(value, indent=2) + "\n"


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
