"""The folder of a sweep: which runs are finished, which begin anew, and that one sweep at a time works in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reweight_core.config import as_values
from reweight_core.errors import UserError
from reweight_core.sweep import Run

OF_A_RUN = {"config.json", "metrics.jsonl", "samples.safetensors", "samples.json", "checkpoints", "summary.json"}


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder, and keep every other sweep out of it until the end (on systems that lock files).

    Raises:
        UserError: if it cannot be made, or another sweep works in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".lock").touch()
    except OSError as error:
        raise UserError(f"--out {out}: {error}") from error
    with open(out / ".lock", "w", encoding="utf-8") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError:
            raise UserError(f"--out {out}: another sweep is at work in it; wait, or give another folder") from None
        yield


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that are not finished yet; nothing is changed.

    Raises:
        UserError: if a finished run has other options, or a folder holds something else than a run.
    """
    return [run for run in runs if not _is_finished(run)]


def _is_finished(run: Run) -> bool:
    if not run.folder.exists():
        return False
    names = {path.name.removesuffix(".partial") for path in run.folder.iterdir()} if run.folder.is_dir() else {""}
    if not names <= OF_A_RUN:
        raise UserError(f"{run.folder}: is in the way and not a run; give another --out")
    if not (run.folder / "summary.json").exists():
        return False
    try:
        found = dict(read_json(run.folder / "config.json")["options"])
    except (KeyError, TypeError):
        raise UserError(f"{run.folder / 'config.json'}: not that of a run; remove the folder") from None
    wanted = json.loads(json.dumps(as_values(run.config)))
    for name in sorted(found.keys() | wanted.keys()):
        # a folder may be moved
        if name != "out" and found.get(name) != wanted.get(name):
            raise UserError(
                f"{run.folder}: is finished, with {name} {found.get(name)} where {wanted.get(name)} is asked for; "
                "give another --out, or remove it"
            )
    return True


def clear(run: Run) -> None:
    """Remove what an earlier, unfinished start left of a run.

    Raises:
        UserError: if it cannot be removed.
    """
    try:
        if run.folder.exists():
            shutil.rmtree(run.folder)
    except OSError as error:
        raise UserError(f"{run.folder}: cannot be removed ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
        UserError: if it is missing or not JSON.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove the folder") from error
    return content
