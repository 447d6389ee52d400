"""Going on with a run that was interrupted, as if it had not been."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import attrs
import torch

from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError
from reweight_core.files import locked
from reweight_core.machine.device import resolve_device
from reweight_core.machine.precision import products
from reweight_core.machine.process_group import joined
from reweight_core.machine.together import Together
from reweight_core.runs import folder
from reweight_core.runs.checkpoint import Checkpoint, load_latest
from reweight_core.training.build import build_observers, build_parts, refuse_gpu_options
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import FinishedRun, loaded, train_to_the_end
from reweight_core.training.machine_errors import told_to_the_user
from reweight_core.training.state import TrainingState


def resume(
    run: Path | str, observers: Sequence[object] = (), processes: int | None = None, allow_changes: bool = False
) -> FinishedRun:
    """Train a run to its end, from its newest checkpoint; the result is that of an uninterrupted run.

    What was written after the checkpoint is dropped: its epochs are trained again. The number of threads is that which
    the run began with, because sums of another number may differ in the last digits.

    Args:
        run: the run's folder.
        observers: objects with hooks of an observer, beside those of ``--observe``.
        processes: how many train together; None for as many as before.
        allow_changes: whether to go on where the result could differ; config.json then says what changed, and when.

    Raises:
        UserError: if there is nothing to go on with, or if the result could differ: other data, another device, another
            number of processes, or other versions.
    """
    path = Path(run)
    config = resumed_config(path, processes, allow_changes)
    record = folder.read_config(path)
    if record.lost_observers:
        warnings.warn(
            f"{path}: observers of the run are not installed here, or cannot be loaded "
            f"({', '.join(record.lost_observers)}); it goes on without them",
            stacklevel=2,
        )
    refuse_gpu_options(config)
    with (
        joined(config.processes, config.device, config.sync_batchnorm) as together,
        locked(path, str(path)) if together.is_first else nullcontext(),
    ):
        changed = _changes(record, config)
        if changed and not allow_changes:
            raise UserError(
                f"{path}: the run cannot go on exactly as it began ({'; '.join(changed)}); --allow-changes goes on all "
                "the same"
            )
        checkpoint = load_latest(path / "checkpoints")
        if changed and together.is_first:
            device = resolve_device(config.device)
            folder.note_changes(path, config, device, checkpoint.manifest.epoch, changed)
        with products(record.precision), _threads(record.environment.threads):
            return _go_on(path, config, checkpoint, observers, together)


def resumed_config(run: Path, processes: int | None = None, allow_changes: bool = False) -> RunConfig:
    """Return the options that a run goes on with (arguments as `resume`).

    Raises:
        UserError: if there is nothing to go on with, or the number of processes differs and may not.
    """
    record = folder.read_config(run)
    if (run / "summary.json").exists():
        raise UserError(f"{run}: this run is finished; reweight eval tests it")
    if not (run / "checkpoints").exists():
        raise UserError(f"{run}: was interrupted before its first checkpoint; remove it and train again")
    config = attrs.evolve(record.config, out=run)
    if processes is not None and processes != record.config.processes:
        if not allow_changes:
            raise UserError(
                f"{run}: was trained in {_processes(record.config.processes)}, not in {processes}: give --processes "
                f"{record.config.processes}, or --allow-changes"
            )
        config = attrs.evolve(config, processes=processes)
    return config


def _changes(record: folder.RunRecord, config: RunConfig) -> list[str]:
    """Say what is another than when the run began, or went on last."""
    changed = record.environment.differences(folder.environment_of(config, resolve_device(config.device)))
    if config.processes != record.config.processes:
        changed.append(f"processes: {record.config.processes}, now {config.processes}")
    return changed


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"


def _go_on(
    run: Path, config: RunConfig, checkpoint: Checkpoint, observers: Sequence[object], together: Together
) -> FinishedRun:
    with told_to_the_user():
        listeners = build_observers(config, restored=True) if together.is_first else {}
        data = loaded(config, together)
        if data.fingerprint != checkpoint.manifest.data_fingerprint:
            raise UserError(f"{run}: the data are not those that the run began with (their fingerprint differs)")
        parts = build_parts(config, data, observers, restored=True, listeners=listeners, together=together)
        state = TrainingState(parts)
        state.restore(checkpoint)
        held_out = HeldOut.of(config, data, parts.device)
    with told_to_the_user(run):
        if together.is_first:
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
