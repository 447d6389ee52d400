"""The folder of a sweep: which of its runs are finished, go on or begin anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reweight_core import RunConfig, UserError, as_values, known_options, locked
from reweight_experiments.cells import PlannedRun

OF_A_RUN = {
    *("config.json", "metrics.jsonl", "samples.safetensors", "samples.json", "checkpoints", "summary.json"),
    *("test_confusion.csv", "val_confusion.csv", "final_test_confusion.csv", "final_val_confusion.csv"),
}


class AtWorkError(UserError):
    """Another process trains in the folder of a run."""


def make_folder(folder: Path, name: str) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: if it cannot be made; the line begins with the name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name}: {error}") from error


def unfinished(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs that are not finished yet; nothing is changed.

    Raises:
        UserError: if a run that is finished, or can be gone on with, has other options, or a folder holds something
            else than a run.
    """
    missing = [run for run in runs if not is_finished(run)]
    for run in missing:
        if _has_checkpoint(run):
            _refuse_differences(run, "was begun")
    return missing


def is_finished(run: PlannedRun) -> bool:
    """Whether the result of a run is there.

    Raises:
        UserError: if it was made with other options, or something else than a run is there.
    """
    if not run.folder.exists():
        return False
    if not (run.folder / "summary.json").exists():
        if not (run.folder.is_dir() and _is_of_a_run(run.folder)):
            raise UserError(f"{run.folder}: is in the way and not a run; give another --out")
        return False
    _refuse_differences(run, "is finished")
    return True


def _has_checkpoint(run: PlannedRun) -> bool:
    """Whether there is one, and not only the beginning of one that was never finished."""
    return any(not path.name.endswith(".partial") for path in (run.folder / "checkpoints").glob("*"))


def _is_of_a_run(folder: Path) -> bool:
    """Whether nothing is there but what a run leaves; beside its options, observers may leave anything."""
    try:
        names = {path.name.removesuffix(".partial") for path in folder.iterdir()}
    except FileNotFoundError:
        # another process begins it anew
        return True
    if names <= OF_A_RUN:
        return True
    config = folder / "config.json"
    return config.exists() and {"format", "options", "versions"} <= read_json(config).keys()


def _refuse_differences(run: PlannedRun, state: str) -> None:
    """Refuse a run that is there with another seed, or with options that change its result."""
    try:
        found = dict(read_json(run.folder / "config.json")["options"])
    except (KeyError, TypeError):
        raise UserError(f"{run.folder / 'config.json'}: not that of a run; remove the folder") from None
    wanted = json.loads(json.dumps(as_values(run.config)))
    known = known_options(RunConfig, wanted)
    free = {name for name, item in known.items() if not item.changes_result}
    # a run that was made before there was an option had what is now its default
    had = {name: json.loads(json.dumps(item.default, default=str)) for name, item in known.items()} | found
    for name in sorted((found.keys() | wanted.keys()) - free):
        if had.get(name) != wanted.get(name):
            raise UserError(
                f"{run.folder}: {state}, with {name} {found.get(name)} where {wanted.get(name)} is asked for; "
                "give another --out"
            )


def arguments_for(run: PlannedRun) -> list[str]:
    """Return the program's arguments that finish a run: those that go on with what an earlier start left, if possible.

    What cannot be gone on with is removed.

    Raises:
        UserError: if another process is at work on the run, it was begun with other options, or it cannot be removed.
    """
    if not run.folder.exists():
        return run.arguments
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(run.folder, str(run.folder)))
        except UserError as error:
            raise AtWorkError(str(error)) from error
        if _has_checkpoint(run):
            _refuse_differences(run, "was begun")
            if not _was_stopped(run):
                return ["resume", str(run.folder)]
        try:
            shutil.rmtree(run.folder)
        except OSError as error:
            raise UserError(f"{run.folder}: cannot be removed ({error})") from error
    return run.arguments


def _was_stopped(run: PlannedRun) -> bool:
    """Whether a run that diverged may have been stopped, and is not to be stopped now: it would be again if resumed."""
    found = read_json(run.folder / "config.json").get("options", {}).get("stop_when")
    return run.config.stop_when == "never" and found != "never"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
        UserError: if it is missing, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove the folder") from error
    return content
