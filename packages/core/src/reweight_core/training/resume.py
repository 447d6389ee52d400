"""Going on with a run that was interrupted, as if it had not been."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import attrs
import torch

from reweight_core.config.resolve import as_values, known_options
from reweight_core.config.run_config import RunConfig
from reweight_core.data.prepare import PreparedData
from reweight_core.errors import UserError
from reweight_core.files import locked
from reweight_core.machine.device import resolve_device
from reweight_core.machine.precision import products
from reweight_core.machine.process_group import joined
from reweight_core.machine.together import Together
from reweight_core.runs import checkpoint, folder
from reweight_core.runs.checkpoint import Checkpoint
from reweight_core.runs.predict import load
from reweight_core.training.build import build_observers, build_parts, refuse_gpu_options
from reweight_core.training.changes import changes, refuse
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import FinishedRun, loaded, train_parts, train_to_the_end, train_together
from reweight_core.training.machine_errors import told_to_the_user
from reweight_core.training.patience import patient_stage
from reweight_core.training.state import TrainingState


def resume(
    run: Path | str,
    observers: Sequence[object] = (),
    processes: int | None = None,
    allow_changes: bool = False,
    more_epochs: int = 0,
) -> FinishedRun:
    """Train a run to its end, from its newest whole checkpoint; the result is that of an uninterrupted run.

    What was written after the checkpoint is dropped: its steps are taken again. A run that was interrupted before its
    first checkpoint begins again. The number of threads is that which the run began with, because sums of another
    number may differ in the last digits.

    Args:
        run: the run's folder.
        observers: objects with hooks of an observer, beside those of ``--observe``.
        processes: how many train together; None for as many as before.
        allow_changes: whether to go on where the result could differ; config.json then says what changed, and when.
        more_epochs: epochs beside those that the run was to have; a finished run can go on with them.

    Raises:
        UserError: if there is nothing to go on with, or if the result could differ: other data, another device, another
            number of processes or of epochs, or other versions.
    """
    path = Path(run)
    config = resumed_config(path, processes, allow_changes, more_epochs)
    record = folder.read_config(path)
    if record.lost_observers:
        warnings.warn(
            f"{path}: observers of the run are not installed here, or cannot be loaded "
            f"({', '.join(record.lost_observers)}); it goes on without them",
            stacklevel=2,
        )
    refuse_gpu_options(config)
    with joined(config.processes, config.device, config.sync_batchnorm) as together:
        return _resumed(path, config, record, observers, together, allow_changes)


def train_or_resume(config: RunConfig, observers: Sequence[object] = ()) -> FinishedRun:
    """Begin the run in the folder ``config.out``, or go on with it there; a finished one stays as it is.

    Args:
        config: what `reweight_core.configure` returned.
        observers: objects with hooks of an observer, beside those of ``--observe``.

    Raises:
        UserError: as `train` and `resume`; if there is no folder, or the run in it has other options.
    """
    out = config.out
    if out is None:
        raise UserError("--resume auto: give --out as well, the folder to begin in or to go on in")
    refuse_gpu_options(config)
    with joined(config.processes, config.device, config.sync_batchnorm) as together:
        # looked at by one: it begins to write while others still look
        begun = together.same(together.is_first and _is_begun(config, out))
        if not begun:
            return train_together(config, observers, None, together)
        if (out / "summary.json").exists():
            summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
            return FinishedRun(out, summary, load(out, config.device).network)
        record = folder.read_config(out)
        return _resumed(out, config, record, observers, together, allow_changes=False)


def _is_begun(config: RunConfig, out: Path) -> bool:
    """Whether a folder has the run of these options, and not none.

    Raises:
        UserError: if it has another, or something else.
    """
    if not (out / "config.json").exists():
        unfinished = out / "config.json.partial"
        if out.is_dir() and [*out.iterdir()] == [unfinished]:
            # of a process that was killed while it wrote it
            unfinished.unlink()
        folder.refuse_taken(out)
        return False
    known = known_options(RunConfig, as_values(config))
    ours, theirs = as_values(config), as_values(folder.read_config(out).config)
    different = [
        f"--{name.replace('_', '-')} {ours.get(name)}, there {theirs.get(name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name) and (name not in known or known[name].changes_result)
    ]
    if different:
        raise UserError(f"--resume auto: the run in {out} has other options ({'; '.join(different)})")
    return True


def _resumed(
    path: Path,
    config: RunConfig,
    record: folder.RunRecord,
    observers: Sequence[object],
    together: Together,
    allow_changes: bool,
) -> FinishedRun:
    """Go on as one of the processes of a run."""
    with locked(path, str(path)) if together.is_first else nullcontext(), products(record.precision):
        if not checkpoint.exists(path / "checkpoints"):
            return _begin_again(path, config, record, observers, together)
        found = changes(record, config)
        changed = refuse(path, found, allow_changes)
        kept = checkpoint.load_latest(path / "checkpoints", record.identity)
        with _threads(record.environment.threads):
            state, held_out = _restored(path, config, kept, observers, together)
            if "epochs" in found:
                _refuse_more_epochs(path, state)
            with told_to_the_user(path):
                if together.is_first:
                    # a run that goes on is not finished
                    (path / "summary.json").unlink(missing_ok=True)
                    if changed:
                        folder.note_changes(path, config, resolve_device(config.device), kept.manifest.step, changed)
                    folder.write_metrics(path, state.history)
                    # a damaged one would push a whole one out
                    checkpoint.remove_after(path / "checkpoints", kept.manifest.step)
                return train_to_the_end(state, held_out, path, record.identity)


def resumed_config(
    run: Path, processes: int | None = None, allow_changes: bool = False, more_epochs: int = 0
) -> RunConfig:
    """Return the options that a run goes on with (arguments as `resume`).

    Raises:
        UserError: if there is nothing to go on with, or the number of processes differs and may not.
    """
    record = folder.read_config(run)
    config = attrs.evolve(record.config, out=run)
    if more_epochs:
        if config.steps is not None:
            raise UserError(f"--epochs {more_epochs}: the run counts its length in steps")
        config = attrs.evolve(config, epochs=config.epochs + more_epochs)
    elif (run / "summary.json").exists():
        raise UserError(f"{run}: this run is finished; reweight eval tests it, and resume --epochs N trains it longer")
    if processes is not None and processes != record.config.processes:
        if not allow_changes:
            raise UserError(
                f"{run}: was trained in {_processes(record.config.processes)}, not in {processes}: give --processes "
                f"{record.config.processes}, or --allow-changes"
            )
        config = attrs.evolve(config, processes=processes)
    return config


def _refuse_more_epochs(run: Path, state: TrainingState) -> None:
    """Raise `UserError` where more epochs would not be trained."""
    stages, position = state.parts.stages, state.position
    if position.stage > patient_stage(stages):
        raise UserError(f"{run}: its epochs are over: the run is in stage '{state.stage.name}', which follows them")
    if state.is_over:
        raise UserError(f"{run}: --patience ended the run, and would again")


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"


def _begin_again(
    run: Path, config: RunConfig, record: folder.RunRecord, observers: Sequence[object], together: Together
) -> FinishedRun:
    """Train a run that has no checkpoint from its beginning."""
    with told_to_the_user():
        listeners = build_observers(config) if together.is_first else {}
        data = loaded(config, together)
        _refuse_other_data(run, data, record.data_fingerprint)
        parts = build_parts(config, data, observers, listeners=listeners, together=together)
        held_out = HeldOut.of(config, data, parts.device)
    with told_to_the_user(run):
        if together.is_first:
            folder.write_metrics(run, [])
        return train_parts(parts, held_out, run, begun=True)


def _restored(
    run: Path, config: RunConfig, kept: Checkpoint, observers: Sequence[object], together: Together
) -> tuple[TrainingState, HeldOut]:
    with told_to_the_user():
        listeners = build_observers(config, restored=True) if together.is_first else {}
        data = loaded(config, together)
        _refuse_other_data(run, data, kept.manifest.data_fingerprint)
        parts = build_parts(config, data, observers, restored=True, listeners=listeners, together=together)
        state = TrainingState(parts)
        state.restore(kept)
        return state, HeldOut.of(config, data, parts.device)


def _refuse_other_data(run: Path, data: PreparedData, fingerprint: str) -> None:
    if data.fingerprint != fingerprint:
        refuse(run, {"data": ["the data are not those that the run began with: their fingerprint differs"]}, True)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with this number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
