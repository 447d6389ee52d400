"""Runs as they lie on disk, finished or not, gathered from the folders of runs and of sweeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core import RunConfig, UserError, core_options, known_options
from reweight_experiments.folder import read_json


@attrs.frozen(eq=False)
class KeptRun:
    """What the folder of a run holds.

    Attributes:
        folder: the folder.
        options: every option by name, those and the observers' aside that change no result.
        defaults: what they would be if nobody gave another, as far as that is known here.
        device: what it was computed on.
        epochs: the figures of its epochs, as in metrics.jsonl.
        summary: its result, None while it is unfinished.
    """

    folder: Path
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    device: str
    epochs: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> KeptRun:
        """Read the folder of a run.

        Raises:
            UserError: if a file of it cannot be read.
        """
        config, result = read_json(folder / "config.json"), folder / "summary.json"
        options = config.get("options")
        if not isinstance(options, dict):
            raise UserError(f"{folder / 'config.json'}: not that of a run")
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
            config.get("device", "-"),
            _epochs(folder / "metrics.jsonl"),
            read_json(result) if result.exists() else None,
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
            return len(self.epochs) if name == "epochs" else sum(epoch["seconds"] for epoch in self.epochs)
        return self.epochs[-1].get(name) if self.epochs else None


def _epochs(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's metrics.jsonl; none if it is not there yet."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    try:
        return [json.loads(line) for line in text.split("\n")[:-1]]
    except ValueError as error:
        raise UserError(f"{file}: holds a line that is no JSON ({error})") from error


def runs_in(folder: Path) -> dict[Path, list[KeptRun]]:
    """Return the runs of a folder by what they count for: a run for itself, the seeds of a sweep's cell together.

    Args:
        folder: of a run, of a sweep, or of a cell of one.

    Raises:
        UserError: if there is no run, or one cannot be read.
    """
    if (folder / "config.json").exists():
        return {folder: [KeptRun.read(folder)]}
    found: dict[Path, list[KeptRun]] = {}
    configs = [path for pattern in ("seed-*", "*/seed-*") for path in folder.glob(f"{pattern}/config.json")]
    for config in sorted(configs, key=lambda path: (path.parents[1], _seed(path.parent))):
        found.setdefault(config.parents[1], []).append(KeptRun.read(config.parent))
    if not found:
        raise UserError(f"{folder}: holds neither a run nor a sweep; give what --out was, or a folder in runs/")
    return found


def _seed(folder: Path) -> int:
    number = folder.name.removeprefix("seed-")
    return int(number) if number.isdecimal() else 0
