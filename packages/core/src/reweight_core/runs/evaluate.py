"""Accuracy of a network, and of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from reweight_core.config.load_data import load_dataset, plan_of
from reweight_core.data.examples import Examples
from reweight_core.data.prepare import digest_of, test_set
from reweight_core.errors import UserError
from reweight_core.machine.device import usable_cpus
from reweight_core.machine.precision import products
from reweight_core.runs import folder as run_folder
from reweight_core.runs.predict import load

BATCH_SIZE, FROM_FILES = 500, 100
"""Examples in one evaluation batch, and where their images are read; it changes the speed, not the result."""


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples, workers: int = 0) -> float:
    """Return the share of examples whose label has the largest logit, the network in eval mode.

    Args:
        model: the network.
        examples: what to test on.
        workers: processes that read image files, where the examples are in files.
    """
    was_training = model.training
    model.eval()
    device = examples.labels.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for batch in examples.in_order(BATCH_SIZE if examples.files is None else FROM_FILES, workers):
        correct += (model(batch.inputs).argmax(1) == batch.labels).sum()
    model.train(was_training)
    return correct.item() / len(examples)


def evaluate(run: Path | str, device: str = "auto") -> dict[str, Any]:
    """Test the newest checkpoint of a run.

    Args:
        run: the run's folder.
        device: where to compute (see ``--device``).

    Returns:
        ``test_accuracy`` in 0..1, ``test_size``, and ``step`` and ``epoch`` of the checkpoint.

    Raises:
        UserError: if the folder holds no run or no whole checkpoint, or if the data have other classes, another
            image size or other features now.
    """
    folder = Path(run)
    config = run_folder.read_config(folder)
    classifier = load(folder, device)
    manifest = classifier.manifest
    try:
        dataset = load_dataset(config)
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    if dataset.classes != manifest.classes or dataset.input_shape != manifest.input_shape:
        raise UserError(f"{folder}: classes or image size of '{config.data}' are not those the run was trained on")
    if classifier.features is not None and dataset.features != classifier.features:
        raise UserError(
            f"{folder}: the features of '{config.data}' have other columns, means or deviations than when the run was "
            "trained (train.csv was changed); use reweight predict"
        )
    # a folder's statistics follow its training images, which may have changed since
    dataset = attrs.evolve(dataset, mean=manifest.mean, std=manifest.std)
    test = test_set(dataset, plan_of(config))
    if test is None:
        raise UserError(f"{folder}: was trained with --test-from none, so there is nothing to test on")
    if manifest.held_out_test not in (None, digest_of(test)):
        raise UserError(
            f"{folder}: the examples that --test-from {config.test_from} holds out now are not those of the run "
            "(files were added, removed or changed), so some may have been trained on"
        )
    examples = Examples(test, dataset, classifier.mean.device, torch.get_default_dtype())
    workers = usable_cpus() if config.workers is None else config.workers
    with products("tf32" if run_folder.read_environment(folder)["precision"] == "tf32" else "ieee"):
        share = accuracy(classifier.network, examples, workers)
    return {
        "test_accuracy": share,
        "test_size": len(examples),
        "step": manifest.step,
        "epoch": manifest.epoch,
    }
