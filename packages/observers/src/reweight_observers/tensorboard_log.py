"""``--observe tensorboard``: event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reweight_core import UserError, hookimpl
from reweight_observers.figures import name_of, numbers_of, weights_of
from reweight_observers.options import TensorBoardConfig


class TensorBoardLog:
    """Writes scalars, histograms of the weights and the options, over epochs.

    Raises:
        UserError: if the package tensorboard is missing.
    """

    def __init__(self, config: TensorBoardConfig):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"--observe tensorboard: {error}; install it with: pip install tensorboard") from error
        self._make_writer, self._log_dir = SummaryWriter, config.log_dir
        self._writer: Any = None

    @hookimpl
    def begin_run(self, folder: Path, config: Mapping[str, Any], epochs_done: int) -> None:
        """Open the log; in that of a resumed run, epochs that are trained again replace those that were."""
        place = folder if self._log_dir is None else self._log_dir / name_of(folder)
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
