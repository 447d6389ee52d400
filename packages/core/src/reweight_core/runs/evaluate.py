"""Accuracy of a network, and of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from reweight_core.config.load_data import load_dataset, plan_of
from reweight_core.config.run_config import RunConfig
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.prepare import digest_of, test_set
from reweight_core.errors import UserError
from reweight_core.machine.device import memory_format, usable_cpus
from reweight_core.machine.precision import products
from reweight_core.runs import folder as run_folder
from reweight_core.runs.predict import Kept, load

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


@attrs.frozen(eq=False)
class HeldOutSet:
    """Examples that a run tests its network on, as its options say they are read and laid out.

    Attributes:
        examples: the examples, on the device.
        workers: processes that read image files.
    """

    examples: Examples
    workers: int

    @classmethod
    def of(cls, split: Split, dataset: Dataset, config: RunConfig, device: torch.device) -> HeldOutSet:
        """Take a split to the device."""
        order = memory_format(config.channels_last)
        examples = Examples(split, dataset, device, torch.get_default_dtype(), "none", order)
        return cls(examples, usable_cpus() if config.workers is None else config.workers)

    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy of a network (`accuracy`)."""
        return accuracy(model, self.examples, self.workers)

    def try_reading(self) -> None:
        """Read every image that is in a file once.

        Raises:
            UserError: if one cannot be read.
        """
        if self.examples.files is not None:
            for _ in self.examples.in_order(FROM_FILES, self.workers):
                pass


def evaluate(run: Path | str, device: str = "auto", network: Kept = "final") -> dict[str, Any]:
    """Test a network of the newest checkpoint of a run.

    Args:
        run: the run's folder.
        device: where to compute (see ``--device``).
        network: which one (`reweight_core.load`).

    Returns:
        ``test_accuracy`` in 0..1, ``test_size``, and ``step`` and ``epoch`` that the network is from.

    Raises:
        UserError: if the folder holds no run or no whole checkpoint, or if the data have other classes, another
            image size or other features now.
    """
    folder = Path(run)
    record = run_folder.read_config(folder)
    config, classifier = record.config, load(folder, device, network)
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
    held_out = HeldOutSet.of(test, dataset, config, classifier.mean.device)
    tested = classifier.network.to(memory_format=memory_format(config.channels_last))
    with products(record.precision):
        share = held_out.accuracy(tested)
    best = manifest.best if network == "best" else None
    return {
        "test_accuracy": share,
        "test_size": len(test),
        "step": best["step"] if best else manifest.step,
        "epoch": best["epoch"] if best else manifest.epoch,
    }
