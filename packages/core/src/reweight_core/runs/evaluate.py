"""How well a network predicts the examples of a set, and that of a finished run those that it was not trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from reweight_core.config.load_data import load_dataset, plan_of
from reweight_core.config.run_config import RunConfig
from reweight_core.data.dataset import Dataset, Split, digest_of
from reweight_core.data.examples import Examples
from reweight_core.data.prepare import prepare, test_set
from reweight_core.errors import UserError
from reweight_core.machine.device import memory_format, usable_cpus
from reweight_core.machine.precision import products
from reweight_core.runs import folder as run_folder
from reweight_core.runs.checkpoint import Kept, Manifest
from reweight_core.runs.judgement import Judgement, figures_of
from reweight_core.runs.new_examples import refuse_other_inputs
from reweight_core.runs.predict import load

BATCH_SIZE, FROM_FILES = 500, 100
"""Examples in one evaluation batch, and where they are read ahead; it changes the speed, not the result."""


@torch.no_grad()
def judge(model: nn.Module, examples: Examples, workers: int = 0) -> Judgement:
    """Judge what a network predicts, in eval mode: the class with the largest logit.

    Args:
        model: the network.
        examples: what to test on.
        workers: processes that read them, where they are stored elsewhere.
    """
    was_training = model.training
    model.eval()
    predicted, confidence, classes = [], [], 0
    for batch in examples.in_order(FROM_FILES if examples.is_read_ahead else BATCH_SIZE, workers):
        logits = model(batch.inputs)
        predicted.append(logits.argmax(1))
        confidence.append(logits.softmax(1, dtype=torch.float64).amax(1))
        classes = logits.shape[1]
    model.train(was_training)
    # read back once, at the end; not summed up before, because sums on a GPU may differ from time to time
    columns = (examples.labels, torch.cat(predicted), torch.cat(confidence))
    return Judgement.of(classes, *(column.cpu().numpy() for column in columns))


@attrs.frozen(eq=False)
class HeldOutSet:
    """Examples that a run tests its network on, as its options say they are read and laid out.

    Attributes:
        examples: the examples, on the device.
        workers: processes that read them, where they are stored elsewhere.
    """

    examples: Examples
    workers: int

    @classmethod
    def of(cls, split: Split, dataset: Dataset, config: RunConfig, device: torch.device) -> HeldOutSet:
        """Take a split to the device."""
        order = memory_format(config.channels_last)
        examples = Examples(split, dataset, device, torch.get_default_dtype(), "none", order)
        return cls(examples, usable_cpus() if config.workers is None else config.workers)

    def judge(self, model: nn.Module) -> Judgement:
        """Judge a network on the examples (`judge`)."""
        return judge(model, self.examples, self.workers)

    def try_reading(self) -> None:
        """Read every example once whose reading takes long, and may fail: every image that is in a file.

        Raises:
            UserError: if one cannot be read.
        """
        if self.examples.stored is not None and self.examples.stored.slow:
            for _ in self.examples.in_order(FROM_FILES, self.workers):
                pass


def evaluate(run: Path | str, device: str = "auto", network: Kept = "final") -> dict[str, Any]:
    """Test a network of the newest checkpoint of a run.

    Args:
        run: the run's folder.
        device: where to compute (see ``--device``).
        network: which one (`reweight_core.load`).

    Returns:
        JSON values: ``step`` and ``epoch`` that the network is from; and of the test set, if the run has one,
        ``test_size``, ``test_accuracy`` and the other figures of `figures_of`, ``test_classes`` (`Judgement.by_class`)
        and ``test_confusion`` (rows are true classes, columns predicted ones); of the validation set ``val_...``.

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
    refuse_other_inputs(folder, manifest, dataset.representation)
    changed = _changes(dataset, manifest)
    if changed:
        raise UserError(
            f"{folder}: the training set of '{config.data}' is not that of the run any more ({changed}); use reweight "
            "predict for new examples"
        )
    # a folder's statistics follow its training images, which may have changed since
    dataset = attrs.evolve(dataset, mean=manifest.mean, std=manifest.std)
    test, val = test_set(dataset, plan_of(config)), _validation_set(dataset, config, manifest, folder)
    if test is None and val is None:
        raise UserError(f"{folder}: was trained with --test-from none, so there is nothing to test on")
    if test is not None and manifest.held_out_test not in (None, digest_of(test)):
        raise UserError(
            f"{folder}: the examples that --test-from {config.test_from} holds out now are not those of the run "
            "(examples were added, removed or changed), so some may have been trained on"
        )
    tested = classifier.network.to(memory_format=memory_format(config.channels_last))
    origin = manifest.origin(network)
    result = {"step": origin["step"], "epoch": origin["epoch"]}
    for part, split in (("test", test), ("val", val)):
        if split is not None:
            held_out = HeldOutSet.of(split, dataset, config, classifier.mean.device)
            with products(record.precision):
                judged = held_out.judge(tested)
            result |= {f"{part}_size": len(split), **figures_of(part, judged)}
            result[f"{part}_classes"] = judged.by_class(dataset.classes)
            result[f"{part}_confusion"] = judged.confusion.tolist()
    return result


def _changes(dataset: Dataset, manifest: Manifest) -> str:
    """Say what is so different in a dataset that the network of a run cannot be tested on it; empty if nothing is."""
    before, now = manifest.classes, dataset.classes
    if now != before:
        different = sorted({*before} ^ {*now})
        how = f"'{different[0]}' is {'new' if different[0] in now else 'gone'}" if different else "in another order"
        return f"other classes: {how}"
    if dataset.input_shape != manifest.input_shape:
        # rows of features have no size beyond their number
        was, size = (
            f"{shape[0]} features" if shape[1:] == (1, 1) else f"images of {' x '.join(map(str, shape))}"
            for shape in (manifest.input_shape, dataset.input_shape)
        )
        return f"{size}, were {was}"
    if manifest.features is not None and dataset.features != manifest.features:
        same = dataset.features is not None and dataset.features.names == manifest.features.names
        return "other means or deviations of its columns" if same else "other columns"
    return ""


def _validation_set(dataset: Dataset, config: RunConfig, manifest: Manifest, run: Path) -> Split | None:
    """Return the run's validation set, or None, with a warning if there was one but the data are others now."""
    if not config.val_size and config.val_fold is None:
        return None
    try:
        with warnings.catch_warnings():
            # what there is to be said of the data was said when the run was trained
            warnings.simplefilter("ignore")
            data = prepare(dataset, plan_of(config))
    except UserError:
        same = False
    else:
        same = data.fingerprint == manifest.data_fingerprint
    if same:
        return data.val
    warnings.warn(
        f"{run}: the training data are not those of the run now, so its validation set is left out", stacklevel=3
    )
    return None
