"""Runs as they lie on disk, finished or not, gathered from the folders of runs and of sweeps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core import RunConfig, UserError, core_options, known_options

FIGURES = (
    *("epochs", "test_accuracy", "test_balanced_accuracy", "test_macro_f1", "final_test_accuracy", "val_accuracy"),
    *("noise_auroc", "train_loss", "meta_loss", "seconds"),
)
"""What is compared or drawn: numbers, or null."""

TEXTS = ("method", "loss", "data", "model", "stop_when")
LISTS = ("with", "observe")
"""Options that are texts, and such that are lists of texts."""

DIVERGED = 100
"""A loss of so many times that of guessing in two epochs in a row, as a run that diverges is ended."""


@attrs.frozen(eq=False)
class KeptRun:
    """What the folder of a run holds.

    Attributes:
        folder: the folder.
        options: every option by name, those and the observers' aside that change no result.
        defaults: what they would be if nobody gave another, as far as that is known here.
        data: what config.json says of its data: ``fingerprint``, and sizes.
        device: what it was computed on.
        epochs: the figures of its epochs, as in metrics.jsonl.
        summary: its result, None while it is unfinished.
        failure: why it ended before its end, as far as its sweep or its figures tell, else None.
    """

    folder: Path
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    data: Mapping[str, Any]
    device: str
    epochs: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any] | None
    failure: str | None = None

    @classmethod
    def read(cls, folder: Path, failure: str | None = None) -> KeptRun:
        """Read the folder of a run.

        Args:
            folder: the folder.
            failure: why the run failed when its sweep was last made, if it did.

        Raises:
            UserError: if a file of it cannot be read.
        """
        file = folder / "config.json"
        config = _object(file, _text(file))
        options, data = config.get("options"), config.get("data", {})
        if not isinstance(options, dict) or not isinstance(data, dict):
            raise UserError(f"{file}: not that of a run")
        _check_options(file, options)
        epochs, result = _epochs(folder / "metrics.jsonl"), _summary(folder / "summary.json")
        if result is None:
            failure = failure or _divergence(epochs, options, data)
        of_observers = tuple(f"{name.replace('-', '_')}_" for name in options.get("observe", ()))
        options = {name: value for name, value in options.items() if not name.startswith(of_observers)}
        options.pop("observe", None)
        try:
            known = known_options(RunConfig, options)
        except UserError:
            # of a plugin that is not installed here
            known = core_options(RunConfig)
        free = {name for name, item in known.items() if not item.changes_result}
        return cls(
            folder,
            {name: value for name, value in options.items() if name not in free},
            {name: item.default for name, item in known.items()},
            data,
            str(config.get("device", "-")),
            epochs,
            result,
            failure if result is None else None,
        )

    @property
    def planned(self) -> int | None:
        """Epochs that it was to have, None if its length is in steps."""
        return None if self.options.get("steps") else self.options.get("epochs")

    def figure(self, name: str) -> float | None:
        """Return a figure of the result; of an unfinished run that of its last epoch, None if there is none."""
        if self.summary is not None:
            return self.summary.get(name)
        if name in ("epochs", "seconds"):
            return len(self.epochs) if name == "epochs" else sum(epoch.get("seconds") or 0.0 for epoch in self.epochs)
        return self.epochs[-1].get(name) if self.epochs else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error


def _object(where: Path | str, text: str) -> dict[str, Any]:
    """Return the JSON object of a text."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: no JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds no JSON object")
    return content


def _check_options(file: Path, options: Mapping[str, Any]) -> None:
    wrong = [name for name in TEXTS if not isinstance(options.get(name, ""), str)]
    if not isinstance(options.get("noise"), str | None):
        wrong.append("noise")
    for name in LISTS:
        value = options.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            wrong.append(name)
    wrong += [name for name in ("epochs", "steps") if not isinstance(options.get(name), int | None)]
    if wrong:
        raise UserError(f"{file}: not that of a run (option {wrong[0]} is {options[wrong[0]]!r})")


def _check_figures(where: Path | str, figures: Mapping[str, Any]) -> None:
    for name in FIGURES:
        value = figures.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise UserError(f"{where}: {name} is {value!r}, not a number")


def _summary(file: Path) -> dict[str, Any] | None:
    """Return the result of a run; None if it is not there yet."""
    if not file.exists():
        return None
    summary = _object(file, _text(file))
    _check_figures(file, summary)
    health = summary.get("health", [])
    if not isinstance(health, list) or not all(
        isinstance(h, dict) and isinstance(h.get("problem"), str) for h in health
    ):
        raise UserError(f"{file}: health is no list of problems")
    if type(summary.get("epochs")) is not int:
        raise UserError(f"{file}: does not say how many epochs there were")
    return summary


def _epochs(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's metrics.jsonl; none if it is not there yet."""
    if not file.exists():
        return []
    epochs = []
    for number, line in enumerate(_text(file).split("\n")[:-1], 1):
        where = f"{file}, line {number}"
        epoch = _object(where, line)
        if type(epoch.get("epoch")) is not int:
            raise UserError(f"{where}: has no epoch")
        _check_figures(where, epoch)
        epochs.append(epoch)
    return epochs


def _divergence(epochs: Sequence[Mapping[str, Any]], options: Mapping[str, Any], data: Mapping[str, Any]) -> str | None:
    """Say that a run without a result has diverged, if its losses were beyond doubt; else None."""
    classes = data.get("classes")
    if options.get("stop_when") != "diverged" or not isinstance(classes, int) or classes < 2 or len(epochs) < 2:
        return None
    for name in ("train_loss", "meta_loss"):
        limit = DIVERGED * max(math.log(classes), epochs[0].get(name) or 0.0)
        if all((epoch.get(name) or 0.0) > limit for epoch in epochs[-2:]):
            return "diverged"
    return None


@attrs.frozen(eq=False)
class Kept:
    """A run, or the seeds of a cell of a sweep.

    Attributes:
        runs: those that have a folder.
        missing: how many runs of the cell have none; they failed before, or were never made.
    """

    runs: Sequence[KeptRun]
    missing: int = 0


def runs_in(folder: Path) -> dict[Path, Kept]:
    """Return the runs of a folder by what they count for: a run for itself, the seeds of a sweep's cell together.

    Args:
        folder: of a run, of a sweep, or of a cell of one.

    Raises:
        UserError: if there is no run, or one cannot be read.
    """
    if (folder / "config.json").exists():
        place = folder.resolve()
        return {
            folder: Kept([KeptRun.read(folder, _planned(place.parents[1]).get(place) if place.parents[1:] else None)])
        }
    planned = _planned(folder) or {
        path: why for path, why in _planned(folder.resolve().parent).items() if path.parent == folder.resolve()
    }
    there = {path.parent for pattern in ("seed-*", "*/seed-*") for path in folder.glob(f"{pattern}/config.json")}
    # a run that is made has a log beside its folder before it has a folder
    logs = {path.with_suffix("") for pattern in ("seed-*", "*/seed-*") for path in folder.glob(f"{pattern}.log")}
    root = folder.resolve()
    runs = there | logs | {folder / path.relative_to(root) for path in planned}
    found: dict[Path, list[Path]] = {}
    for run in sorted(runs, key=lambda path: (path.parent, _seed(path))):
        found.setdefault(run.parent, []).append(run)
    if not there:
        raise UserError(f"{folder}: holds neither a run nor a sweep; give what --out was, or a folder in runs/")
    return {
        cell: Kept(
            [KeptRun.read(run, planned.get(run.resolve())) for run in of_cell if run in there],
            sum(run not in there for run in of_cell),
        )
        for cell, of_cell in found.items()
    }


def _planned(sweep: Path) -> dict[Path, str | None]:
    """Return the folders of a sweep's runs and why they failed, None if they did not; nothing if it is no sweep's."""
    try:
        content = json.loads((sweep / "results.json").read_text(encoding="utf-8"))
        return {
            sweep.resolve() / str(cell["name"]) / f"seed-{int(run['seed'])}": run.get("error")
            for cell in content["cells"]
            for run in cell["runs"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _seed(folder: Path) -> int:
    number = folder.name.removeprefix("seed-")
    return int(number) if number.isdecimal() else 0
