"""Data, and what a run trains with, small enough for unit tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reweight_core.config.resolve import plainly_configured
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.prepare import PreparedData
from reweight_core.machine.together import ALONE, Together
from reweight_core.training.build import Parts, build_parts
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import FinishedRun, train_parts


def tiny_dataset(classes: int = 4, per_class: int = 11, size: int = 8, seed: int = 0) -> Dataset:
    """Make a dataset of noisy grey stripes, a direction and width for each class; uint8 (N, 1, size, size)."""
    rng = np.random.RandomState(seed)

    def split(count: int) -> Split:
        labels = np.repeat(np.arange(classes), count).astype(np.int64)
        rows, columns = np.mgrid[:size, :size]
        waves = [np.sin((rows if c % 2 else columns) * (1 + c // 2)) for c in range(classes)]
        pixels = 128 + 60 * np.stack([waves[label] for label in labels]) + 30 * rng.randn(len(labels), size, size)
        return Split(pixels.clip(0, 255).astype(np.uint8)[:, None], labels)

    return Dataset(
        train=split(per_class),
        test=split(3),
        meta=split(2),
        classes=tuple(f"class {c}" for c in range(classes)),
        mean=(128.0,),
        std=(64.0,),
        augment="crop-flip",
        padding=1,
    )


def tiny_parts(
    method: str,
    observers: Sequence[object] = (),
    model: str = "resnet20",
    classes: int = 4,
    meta_set: bool = True,
    together: Together = ALONE,
    **options: Any,
) -> Parts:
    """Build what a run of a method on `tiny_dataset` trains with, a quarter of its labels wrong, on the CPU.

    Args:
        method: name of an installed method.
        observers: objects with hooks that watch the run.
        model: network (see ``--model``).
        classes: number of classes.
        meta_set: whether there are clean examples.
        together: the processes of the run.
        options: core's options and those of the method, the loss and the components that are named, by name.

    Raises:
        UserError: if an option is wrong or nobody has it.
    """
    dataset = tiny_dataset(classes)
    values: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 10,
        "meta_batch_size": 6,
        "device": "cpu",
        "method": method,
        "model": model,
        "processes": together.size,
    }
    values |= options
    config = plainly_configured(values)
    observed = dataset.train.labels.copy()
    observed[::4] = (observed[::4] + 1) % len(dataset.classes)
    data = PreparedData(
        dataset=dataset,
        train=Split(dataset.train.images, observed),
        ids=np.arange(len(observed)),
        true_labels=dataset.train.labels,
        meta=dataset.meta if meta_set else None,
        meta_ids=np.arange(len(dataset.meta or ()) if meta_set else 0),
        val=None,
        test=dataset.test,
        fingerprint="tiny",
    )
    return build_parts(config, data, observers, together=together)


def train_in(folder: Path, parts: Parts) -> FinishedRun:
    """Train from the beginning to the end and write the run to a new folder."""
    folder.mkdir()
    return train_parts(parts, HeldOut.of(parts.config, parts.data, parts.device), folder)
