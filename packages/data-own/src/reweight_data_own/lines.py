"""Text files with an entry on each line."""

from __future__ import annotations

from pathlib import Path

from reweight_core import UserError


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file of UTF-8; only line feeds end one, since texts may hold other separators.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as lines of text in UTF-8 ({error})") from error
    return lines if lines[-1] else lines[:-1]
