"""``--observe trackio`` and ``--observe wandb``: libraries with the functions ``init``, ``log`` and ``finish``."""

from __future__ import annotations

import json
import os
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from reweight_core import UserError, hookimpl, write_json
from reweight_observers.figures import name_of, numbers_of, weights_of
from reweight_observers.options import TrackerConfig


class Tracker(ABC):
    """Logs scalars, histograms of the weights and the options, over epochs.

    Where the log is, is kept in the file ``LIBRARY.json`` of the run's folder, and how far it is, the library is asked:
    of a process that was killed it may lack what it had not sent. What the library prints goes to standard error, as
    standard output may be read by a program.

    Attributes:
        library: name of the library's module.

    Raises:
        UserError: if the library is missing.
    """

    library: str

    def __init__(self, config: TrackerConfig):
        try:
            with redirect_stdout(sys.stderr):
                self._module = import_module(self.library)
        except ImportError as error:
            raise UserError(
                f"--observe {self.library}: {error}; install it with: pip install {self.library}"
            ) from error
        self._config = config
        self._run: Any = None

    @abstractmethod
    def open(self, place: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
        """Return the library's run: that which was begun at this place, else a new one.

        Args:
            place: its ``project``, ``name`` and ``id``; no other run has this id.
            config: every option of the training by name.
        """

    @abstractmethod
    def next_step(self) -> int:
        """Return one more than the last step that the library has of the run; 0 or 1 if it has none."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Finish the library's run."""

    @hookimpl
    def begin_run(self, folder: Path, config: Mapping[str, Any], epochs_done: int) -> None:
        """Open the run, and log the epochs of a resumed training that the library has not got."""
        file = folder / f"{self.library}.json"
        if epochs_done and file.exists():
            place = json.loads(file.read_text(encoding="utf-8"))
        else:
            project = self._config.project or os.environ.get(f"{self.library.upper()}_PROJECT") or "reweight"
            place = {"project": project, "name": self._config.name or name_of(folder), "id": uuid.uuid4().hex[:8]}
            write_json(file, place)
        with redirect_stdout(sys.stderr):
            self._run = self.open(place, config)
        self._next_step = self.next_step()
        if epochs_done:
            for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                self._log(json.loads(line), {})

    @hookimpl
    def observe_epoch(self, metrics: Mapping[str, Any], samples: Mapping[str, np.ndarray]) -> None:
        """Log an epoch, if it was not before."""
        self._log(metrics, weights_of(samples))

    def _log(self, metrics: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
        if metrics["epoch"] < self._next_step:
            return
        figures: dict[str, Any] = numbers_of(metrics)
        # trackio has a figure of its own that is called so
        figures["steps"] = figures.pop("step")
        figures |= {name: self._module.Histogram(values) for name, values in weights.items()}
        self._run.log(figures, step=metrics["epoch"])

    @hookimpl
    def end_run(self, error: BaseException | None) -> None:
        """Finish the run, so that all of it is sent."""
        if self._run is not None:
            with redirect_stdout(sys.stderr):
                self.close(error is not None)


class Trackio(Tracker):
    """A log of trackio (Hugging Face), in its own folder or where its environment variables say."""

    library = "trackio"

    def open(self, place: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
        """Find the run by its name, which the id is part of: trackio takes no id, and may have several of one name."""
        # without embed=False a notebook starts the dashboard
        return self._module.init(
            project=place["project"],
            name=f"{place['name']}-{place['id']}",
            config=dict(config),
            resume="allow",
            embed=False,
        )

    def next_step(self) -> int:
        """Return the step that trackio would take by itself; it does not tell it by a public name."""
        return int(self._run._next_step)

    def close(self, failed: bool) -> None:
        """Finish the run; trackio knows no failed ones."""
        self._module.finish()


class WandB(Tracker):
    """A log of Weights & Biases, where its environment variables say."""

    library = "wandb"

    def open(self, place: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
        """Find the run by its id."""
        return self._module.init(
            project=place["project"], name=place["name"], id=place["id"], config=dict(config), resume="allow"
        )

    def next_step(self) -> int:
        """Return the step that the run goes on from; offline it is 0, as every part of the run is kept by itself."""
        return int(self._run.starting_step)

    def close(self, failed: bool) -> None:
        """Finish the run, and say whether the training failed."""
        self._module.finish(exit_code=int(failed))
