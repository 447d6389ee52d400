"""The two folders of a search: OUT for the run, and OUT.search for the trials; what may be gone on with in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from reweight_core import RunConfig, UserError, as_values, registry, resume, train, write_json
from reweight_fit.candidates import Candidate

if TYPE_CHECKING:
    from reweight_core import FinishedRun, PreparedData

HARMLESS = ("workers", "checkpoint_every", "observe")
"""Options that change nothing of what comes of a training."""

OF_A_RUN = {"config.json", "checkpoints"}
"""What a run has one of, from its beginning."""


@attrs.frozen
class Folders:
    """Where a search keeps what.

    Attributes:
        out: folder of the run.
        trials: folder of the trials, beside it.
    """

    out: Path
    trials: Path

    @classmethod
    def of(cls, out: Path | str) -> Folders:
        """Name them, and see that the first is free.

        Raises:
            UserError: if it holds something else than a run that this search began and did not end.
        """
        path = Path(out)
        if path.name in ("", ".."):
            # such as . in its own folder
            path = path.resolve()
        folders = cls(path, path.with_name(f"{path.name}.search"))
        try:
            names = {file.name for file in path.iterdir()} if path.exists() else set()
        except OSError as error:
            raise UserError(f"--out {out}: {error}") from error
        if not names:
            return folders
        ours = folders._made_with.exists()
        if ours and "summary.json" in names:
            raise UserError(
                f"--out {out}: holds a finished run; delete it to search on with the trials in {folders.trials.name}, "
                "or give another folder"
            )
        if not ours or not names & OF_A_RUN:
            raise UserError(f"--out {out}: is there already and not empty; give another folder")
        return folders

    @property
    def _made_with(self) -> Path:
        return self.trials / "made-with.json"

    def begin(self, plain: RunConfig, fingerprint: str, candidates: Sequence[Candidate]) -> None:
        """Make the folder of the trials, and note what they are made with.

        Raises:
            UserError: if it cannot be made, or holds trials with other options, data or versions.
        """
        try:
            self.trials.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.out}: {error}") from error
        plugins = {plugin for candidate in candidates for plugin in candidate.plugins}
        versions = {"/".join(plugin): registry.version_of(*plugin) for plugin in sorted(plugins)}
        versions |= {name: metadata.version(name) for name in ("reweight-core", "reweight-fit", "torch")}
        made_with = _as_json({"options": _decisive(as_values(plain)), "data": fingerprint, "versions": versions})
        if not self._made_with.exists():
            write_json(self._made_with, made_with)
            return
        try:
            kept = json.loads(self._made_with.read_text(encoding="utf-8"))
            # with other candidates, what others are there does not matter
            common = kept["versions"].keys() & versions.keys()
            kept = {
                "options": dict(kept["options"]),
                "data": kept["data"],
                "versions": {name: kept["versions"][name] for name in common},
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{self._made_with}: cannot be read ({error}); delete the folder {self.trials}") from error
        made_with["versions"] = {name: versions[name] for name in common}
        for part, what in (("options", "option --{}"), ("versions", "version of {}")):
            names = sorted(kept[part].keys() | made_with[part].keys())
            changed = [name for name in names if kept[part].get(name) != made_with[part].get(name)]
            if changed:
                self._refuse(what.format(changed[0].replace("_", "-")))
        if kept["data"] != made_with["data"]:
            self._refuse("data")

    def _refuse(self, what: str) -> None:
        raise UserError(f"{self.trials}: has trials with other {what}; give another --out, or delete the folder")

    def train(self, config: RunConfig, observers: Sequence[object], data: PreparedData) -> FinishedRun:
        """Make the last training, or go on with what an interrupted call began.

        Raises:
            UserError: if it began something else.
        """
        if not (self.out / "checkpoints").exists():
            if self.out.exists():
                shutil.rmtree(self.out)
            return train(config, observers, data)
        try:
            began = _decisive(json.loads((self.out / "config.json").read_text(encoding="utf-8"))["options"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"--out {self.out}: config.json cannot be read ({error}); delete the folder") from error
        if began != _as_json(_decisive(as_values(config))):
            raise UserError(
                f"--out {self.out}: holds an unfinished run of another way to train; delete it, or give another folder"
            )
        return resume(self.out, observers)


def _decisive(options: dict[str, Any]) -> dict[str, Any]:
    of_observers = tuple(f"{name.replace('-', '_')}_" for name in options["observe"])
    return {
        name: value for name, value in options.items() if name not in HARMLESS and not name.startswith(of_observers)
    }


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a file would hold of it."""
    found: dict[str, Any] = json.loads(json.dumps(value))
    return found
