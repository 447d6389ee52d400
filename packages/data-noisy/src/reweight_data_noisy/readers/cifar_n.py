"""CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022): CIFAR with labels that people gave, from the official files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from reweight_core import Dataset, UserError
from reweight_data_noisy.options import FilesOptions, PeoplesLabelsOf10Options, PeoplesLabelsOptions
from reweight_data_noisy.readers.cifar import load as load_cifar

SOURCE = "https://github.com/UCSC-REAL/cifar-10-100n (folder data/)"

KEYS = {
    "aggre": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
    "worst": "worse_label",
}
"""What the label sets of ``--labels`` are called in the file of CIFAR-10N."""

_RECONSTRUCT = np.empty(0).__reduce__()[0]

ARRAYS: list[Any] = [
    # numpy 2 renamed the module; files of either must load with either
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"]},
]
"""All that the pickle of a label file may name: arrays of whole numbers."""


def load_cifar10n(config: PeoplesLabelsOf10Options) -> Dataset:
    """Load CIFAR-10 with the label set of three people's that is asked for (errors as `load`)."""
    return load("cifar10", config, "CIFAR-10_human.pt", KEYS[config.labels])


def load_cifar100n(config: PeoplesLabelsOptions) -> Dataset:
    """Load CIFAR-100 with the labels that people gave (errors as `load`)."""
    return load("cifar100", config, "CIFAR-100_human.pt", "noisy_label")


def load(cifar: str, config: FilesOptions, file: str, key: str) -> Dataset:
    """Load CIFAR with people's labels as the observed ones; CIFAR's own are the true ones.

    No checksum of the label files is published. What stands in for it: nothing but arrays is unpickled, the file's
    ``clean_label`` must be CIFAR's own labels, all in their order, and every label must be a class.

    Args:
        cifar: ``cifar10`` or ``cifar100``.
        config: where the files are.
        file: the label file, in the same folder as CIFAR's.
        key: the label set in it.

    Raises:
        UserError: if a file is missing, or is not the official one by these signs.
    """
    path = config.data_root.absolute() / file
    content = _read(path)
    dataset = load_cifar(cifar, config)
    clean, observed = (_labels(path, content, part, dataset) for part in ("clean_label", key))
    if not np.array_equal(clean, dataset.train.labels):
        raise UserError(
            f"{path}: its clean_label is not CIFAR's own labels in their order, so its labels are of other images; "
            f"get the file from {SOURCE}"
        )
    return attrs.evolve(dataset, observed=observed)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path} is missing; get it from {SOURCE}, it is not part of --download")
    try:
        with torch.serialization.safe_globals(ARRAYS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own message advises to read the file without this protection
        raise UserError(
            f"{path}: is refused, because it is damaged or holds more than numpy's arrays, which could run code; "
            f"get the file from {SOURCE}"
        ) from None
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        raise UserError(f"{path}: is damaged ({type(error).__name__}); get the file from {SOURCE}") from error


def _labels(path: Path, content: Any, key: str, dataset: Dataset) -> np.ndarray:
    """Return a label set, int64 (N,), if it has a class for every training example."""
    labels = content.get(key) if isinstance(content, dict) else None
    shape, classes = dataset.train.labels.shape, len(dataset.classes)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != shape:
        raise UserError(f"{path}: has no array '{key}' of {shape[0]} whole numbers; get the file from {SOURCE}")
    if not (labels.min() >= 0 and labels.max() < classes):
        raise UserError(f"{path}: '{key}' has a label outside 0..{classes - 1}; get the file from {SOURCE}")
    return labels.astype(np.int64)
