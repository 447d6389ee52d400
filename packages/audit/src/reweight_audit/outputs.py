"""The files that a command is to write, checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reweight_core import UserError


def refuse_outputs(files: Mapping[str, Path | None]) -> None:
    """Refuse files that cannot be written, or of which one would be written over another.

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
