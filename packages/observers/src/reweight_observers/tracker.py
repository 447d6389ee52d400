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

    How to go on with the log is kept in the file ``LIBRARY.json`` of the run's folder. What the library prints goes to
    standard error, as standard output may be read by a program.

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
    def open(self, place: Mapping[str, Any], config: Mapping[str, Any], goes_on: bool) -> Any:
        """Return the library's run.

        Args:
            place: its ``project``, ``name`` and ``id``.
            config: every option of the training by name.
            goes_on: whether it was begun before.
        """

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Finish the library's run."""

    @hookimpl
    def begin_run(self, folder: Path, config: Mapping[str, Any], epochs_done: int) -> None:
        """Open the run; epochs of a resumed training that were logged before are not logged again."""
        self._file = folder / f"{self.library}.json"
        goes_on = epochs_done > 0 and self._file.exists()
        if goes_on:
            self._place = json.loads(self._file.read_text(encoding="utf-8"))
        else:
            project = self._config.project or os.environ.get(f"{self.library.upper()}_PROJECT") or "reweight"
            name = self._config.name or name_of(folder)
            self._place = {"project": project, "name": name, "id": uuid.uuid4().hex[:8], "epochs": 0}
            write_json(self._file, self._place)
        with redirect_stdout(sys.stderr):
            self._run = self.open(self._place, config, goes_on)

    @hookimpl
    def observe_epoch(self, metrics: Mapping[str, Any], samples: Mapping[str, np.ndarray]) -> None:
        """Log an epoch."""
        if metrics["epoch"] <= self._place["epochs"]:
            return
        figures: dict[str, Any] = numbers_of(metrics)
        # trackio has a figure of its own that is called so
        figures["steps"] = figures.pop("step")
        figures |= {name: self._module.Histogram(weights) for name, weights in weights_of(samples).items()}
        self._run.log(figures, step=metrics["epoch"])
        self._place["epochs"] = metrics["epoch"]
        write_json(self._file, self._place)

    @hookimpl
    def end_run(self, error: BaseException | None) -> None:
        """Finish the run, so that all of it is sent."""
        if self._run is not None:
            with redirect_stdout(sys.stderr):
                self.close(error is not None)


class Trackio(Tracker):
    """A log of trackio (Hugging Face), in its own folder or where its environment variables say."""

    library = "trackio"

    def open(self, place: Mapping[str, Any], config: Mapping[str, Any], goes_on: bool) -> Any:
        """Find the run that goes on by its name, because trackio takes no id."""
        resume = "allow" if goes_on else "never"
        # without embed=False a notebook starts the dashboard
        return self._module.init(
            project=place["project"], name=place["name"], config=dict(config), resume=resume, embed=False
        )

    def close(self, failed: bool) -> None:
        """Finish the run; trackio knows no failed ones."""
        self._module.finish()


class WandB(Tracker):
    """A log of Weights & Biases, where its environment variables say."""

    library = "wandb"

    def open(self, place: Mapping[str, Any], config: Mapping[str, Any], goes_on: bool) -> Any:
        """Find the run that goes on by its id."""
        return self._module.init(
            project=place["project"], name=place["name"], id=place["id"], config=dict(config), resume="allow"
        )

    def close(self, failed: bool) -> None:
        """Finish the run, and say whether the training failed."""
        self._module.finish(exit_code=int(failed))
