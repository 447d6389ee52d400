"""``--observe tensorboard``: event files for TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reweight_core import UserError, hookimpl, write_json
from reweight_observers.figures import name_of, numbers_of, weights_of
from reweight_observers.options import TensorBoardConfig


class TensorBoardLog:
    """Writes scalars, histograms of the weights and the options, over epochs.

    In ``--tensorboard-log-dir`` a run takes a folder of its own, which is kept in ``tensorboard.json`` of its folder.

    Raises:
        UserError: if the package tensorboard is missing, or the log cannot be written where it is to lie.
    """

    def __init__(self, config: TensorBoardConfig):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"--observe tensorboard: {error}; install it with: pip install tensorboard") from error
        if config.log_dir is not None:
            _refuse_place(config.log_dir)
        self._make_writer, self._log_dir = SummaryWriter, config.log_dir
        self._writer: Any = None

    @hookimpl
    def begin_run(self, folder: Path, config: Mapping[str, Any], epochs_done: int) -> None:
        """Open the log; in that of a resumed run, epochs that are trained again replace those that were."""
        place = folder if self._log_dir is None else _kept_place(folder, self._log_dir, epochs_done)
        self._writer = self._make_writer(str(place), purge_step=epochs_done + 1)
        if not epochs_done:
            lines = [
                "| option | value |",
                "| --- | --- |",
                *(f"| {name} | {value} |" for name, value in config.items()),
            ]
            self._writer.add_text("options", "\n".join(lines))

    @hookimpl
    def observe_epoch(self, metrics: Mapping[str, Any], samples: Mapping[str, np.ndarray]) -> None:
        """Write an epoch, so that it is seen at once."""
        for name, value in numbers_of(metrics).items():
            self._writer.add_scalar(name, value, metrics["epoch"])
        for name, weights in weights_of(samples).items():
            self._writer.add_histogram(name, weights, metrics["epoch"])
        self._writer.flush()

    @hookimpl
    def end_run(self) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()


def _refuse_place(log_dir: Path) -> None:
    """Raise `UserError` if no folder can be made there."""
    there = next(path for path in (log_dir, *log_dir.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UserError(f"--tensorboard-log-dir {log_dir}: {there} is no folder; give another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--tensorboard-log-dir {log_dir}: nothing can be written to {there}; give another folder")


def _kept_place(folder: Path, log_dir: Path, epochs_done: int) -> Path:
    """Return where the log of a run was begun, for a new run a new folder of its name, with a number if it is taken."""
    file = folder / "tensorboard.json"
    if epochs_done and file.exists():
        return Path(json.loads(file.read_text(encoding="utf-8"))["folder"])
    name, number = name_of(folder), 1
    while True:
        place = log_dir / (name if number == 1 else f"{name}-{number}")
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"--tensorboard-log-dir {log_dir}: {error}") from error
        else:
            write_json(file, {"folder": str(place.resolve())})
            return place
