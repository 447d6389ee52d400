"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), from their official files through torchvision's reader."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity, download_and_extract_archive

from reweight_core import Dataset, Split, UserError
from reweight_data_noisy.options import FilesOptions

READERS: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}
"""torchvision's class for each dataset."""


def load(name: str, config: FilesOptions) -> Dataset:
    """Load images (N, 3, 32, 32), normalised and augmented as in MW-Net.

    Args:
        name: a key of `READERS`.
        config: where the files are.

    Raises:
        UserError: if a file is missing or has a wrong checksum, or if the download fails.
    """
    reader, root = READERS[name], config.data_root.absolute()
    problem = _problem(reader, root)
    if problem and config.download:
        _download(reader, root)
        problem = _problem(reader, root)
    if problem:
        raise UserError(f"{problem}; give --download, or extract the archive {reader.url} into {root}")
    train, test = reader(root, train=True), reader(root, train=False)
    return Dataset(
        train=_split(train),
        test=_split(test),
        classes=tuple(train.classes),
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
        augment="crop-flip",
        padding=4,
    )


def _problem(reader: type[CIFAR10], root: Path) -> str | None:
    """Say which file is missing or corrupt, if any.

    The files are pickles, which can run code when they are read: all are checked before any is opened.
    """
    meta = reader.meta["filename"], reader.meta["md5"]
    for name, md5 in [*reader.train_list, *reader.test_list, meta]:
        path = root / reader.base_folder / name
        if not path.is_file():
            return f"{path} is missing"
        if not check_integrity(path, md5):
            return f"{path} is corrupt (its MD5 checksum is not {md5})"
    return None


def _download(reader: type[CIFAR10], root: Path) -> None:
    try:
        download_and_extract_archive(reader.url, root, filename=reader.filename, md5=reader.tgz_md5)
    except (OSError, HTTPException, RuntimeError) as error:
        raise UserError(
            f"--download: cannot fetch {reader.url} into {root} ({error}); "
            f"put {reader.filename} there by other means and run again"
        ) from error


def _split(part: CIFAR10) -> Split:
    images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
    return Split(images, np.array(part.targets, dtype=np.int64))
