"""Going on with a run that was interrupted, as if it had not been."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import torch

from reweight_core.config.load_data import load_data
from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError
from reweight_core.files import locked
from reweight_core.machine.device import resolve_device
from reweight_core.machine.precision import products
from reweight_core.runs import folder
from reweight_core.runs.checkpoint import Checkpoint, load_latest
from reweight_core.training.build import build_observers, build_parts, refuse_gpu_options
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import FinishedRun, train_to_the_end
from reweight_core.training.machine_errors import told_to_the_user
from reweight_core.training.state import TrainingState


def resume(run: Path | str, observers: Sequence[object] = ()) -> FinishedRun:
    """Train a run to its end, from its newest checkpoint; the result is that of an uninterrupted run.

    What was written after the checkpoint is dropped: its epochs are trained again. The number of threads is that which
    the run began with, because sums of another number may differ in the last digits.

    Args:
        run: the run's folder.
        observers: objects with hooks of an observer, beside those of ``--observe``.

    Raises:
        UserError: if there is nothing to go on with, or if the result could differ: other data, another device, or
            other versions.
    """
    path = Path(run)
    record = folder.read_config(path)
    config = attrs.evolve(record.config, out=path)
    if (path / "summary.json").exists():
        raise UserError(f"{path}: this run is finished; reweight eval tests it")
    if not (path / "checkpoints").exists():
        raise UserError(f"{path}: was interrupted before its first checkpoint; remove it and train again")
    if record.lost_observers:
        warnings.warn(
            f"{path}: observers of the run are not installed here, or cannot be loaded "
            f"({', '.join(record.lost_observers)}); it goes on without them",
            stacklevel=2,
        )
    refuse_gpu_options(config)
    with locked(path, str(path)):
        changed = record.environment.differences(folder.environment_of(config, resolve_device(config.device)))
        if changed:
            raise UserError(f"{path}: the run cannot go on exactly as it began ({'; '.join(changed)})")
        with products(record.precision), _threads(record.environment.threads):
            return _go_on(path, config, load_latest(path / "checkpoints"), observers)


def _go_on(run: Path, config: RunConfig, checkpoint: Checkpoint, observers: Sequence[object]) -> FinishedRun:
    with told_to_the_user():
        listeners = build_observers(config, restored=True)
        data = load_data(config)
        if data.fingerprint != checkpoint.manifest.data_fingerprint:
            raise UserError(f"{run}: the data are not those that the run began with (their fingerprint differs)")
        parts = build_parts(config, data, observers, restored=True, listeners=listeners)
        state = TrainingState(parts)
        state.restore(checkpoint)
        held_out = HeldOut.of(config, data, parts.device)
    with told_to_the_user(run):
        folder.write_metrics(run, state.history)
        return train_to_the_end(state, held_out, run)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with this number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
