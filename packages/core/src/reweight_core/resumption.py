"""Going on with a run that was interrupted, as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core import run_folder
from reweight_core.checkpoint import Checkpoint, load_latest
from reweight_core.comparison import Choice
from reweight_core.errors import UserError
from reweight_core.preparation import load
from reweight_core.products import products
from reweight_core.training import Run, Trainer, refuse_gpu_options, told_to_the_user


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
    refuse_gpu_options(config)
    checkpoint = load_latest(folder / "checkpoints")
    with told_to_the_user():
        data = load(config)
    if data.fingerprint != checkpoint.manifest["data_fingerprint"]:
        raise UserError(f"{folder}: the data are not those that the run began with (their fingerprint differs)")
    written = run_folder.read_environment(folder)
    with products("tf32" if written["precision"] == "tf32" else "ieee"):
        with told_to_the_user():
            trainer = Trainer(config, data, observers)
        now = run_folder.environment(config, trainer.device)
        changed = [f"{key}: {written[key]}, now {now[key]}" for key in now if written[key] != now[key]]
        if changed:
            raise UserError(f"{folder}: the run cannot go on exactly as it began ({'; '.join(changed)})")
        restore(trainer, checkpoint)
        with told_to_the_user(folder):
            history = _finished_epochs(folder, trainer.epochs_done)
            return trainer.go_on(folder, history)


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
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"the checkpoint of epoch {manifest.get('epoch')} does not fit this run ({error})") from error
    trainer.step.strategy = trainer.lookahead.strategy
    trainer.step.health.start_after(trainer.done)


def _finished_epochs(folder: Path, epochs: int) -> list[dict[str, Any]]:
    """Return the metrics of the first epochs, and drop those of later ones from the file."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:epochs]
    run_folder.write_metrics(folder, lines)
    return [json.loads(line) for line in lines]
