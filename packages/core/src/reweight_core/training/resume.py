"""Going on with a run that was interrupted, as if it had not been."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import torch

from reweight_core.config.load_data import load_data
from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError
from reweight_core.files import locked
from reweight_core.machine.precision import products
from reweight_core.runs import folder as run_folder
from reweight_core.runs.checkpoint import Checkpoint, load_latest
from reweight_core.training.auto import Choice
from reweight_core.training.loop import Run, Trainer, refuse_gpu_options, told_to_the_user


def resume(run: Path | str, observers: Sequence[object] = ()) -> Run:
    """Train a run to its end, from its newest checkpoint; the result is that of an uninterrupted run.

    What was written after the checkpoint is dropped: its epochs are trained again.

    Args:
        run: the run's folder.
        observers: objects with `observe_step` or `observe_epoch` hooks.

    Raises:
        UserError: if there is nothing to go on with, or if the result could differ: other data, another device, or
            other versions.
    """
    folder = Path(run)
    config = attrs.evolve(run_folder.read_config(folder), out=folder)
    if (folder / "summary.json").exists():
        raise UserError(f"{folder}: this run is finished; reweight eval tests it")
    if not (folder / "checkpoints").exists():
        raise UserError(f"{folder}: was interrupted before its first checkpoint; remove it and train again")
    refuse_gpu_options(config)
    with locked(folder, str(folder)):
        return _go_on(folder, config, load_latest(folder / "checkpoints"), observers)


def _go_on(folder: Path, config: RunConfig, checkpoint: Checkpoint, observers: Sequence[object]) -> Run:
    written = run_folder.read_environment(folder)
    for key in ("plugins", "versions", "device", "threads", "precision"):
        if key not in written:
            raise UserError(f"{folder / 'config.json'}: has no '{key}'; it is of another version of reweight")
    torch.set_num_threads(written["threads"])
    with told_to_the_user():
        data = load_data(config)
    if data.fingerprint != checkpoint.manifest["data_fingerprint"]:
        raise UserError(f"{folder}: the data are not those that the run began with (their fingerprint differs)")
    with products("tf32" if written["precision"] == "tf32" else "ieee"):
        with told_to_the_user():
            # its weights come from the checkpoint
            trainer = Trainer(attrs.evolve(config, init_from=None, pretrained=False), data, observers)
        now = run_folder.environment(config, trainer.device)
        changed = [f"{key}: {written[key]}, now {now[key]}" for key in now if written[key] != now[key]]
        if changed:
            raise UserError(f"{folder}: the run cannot go on exactly as it began ({'; '.join(changed)})")
        restore(trainer, checkpoint)
        with told_to_the_user(folder):
            run_folder.write_metrics(folder, trainer.history)
            return trainer.go_on(folder)


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Bring a trainer to where a checkpoint was written.

    Raises:
        UserError: if the checkpoint is not one of such a run.
    """
    state, manifest = checkpoint.state, checkpoint.manifest
    # where the evaluated network is another one, the trained one is in the state
    trained = {name.removeprefix("network."): t for name, t in state.items() if name.startswith("network.")}
    try:
        trainer.model.load_state_dict(trained or checkpoint.model)
        trainer.step.load_state_dict(state)
        trainer.load_state_of_parts(state)
        trainer.lookahead = Choice(**manifest["lookahead"])
        trainer.epochs_done, trainer.done = manifest["epoch"], manifest["step"]
        trainer.history, trainer.seconds = list(manifest["history"]), manifest["seconds"]
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"the checkpoint of epoch {manifest.get('epoch')} does not fit this run ({error})") from error
    trainer.step.strategy = trainer.lookahead.strategy
    trainer.step.health.start_after(trainer.done)
