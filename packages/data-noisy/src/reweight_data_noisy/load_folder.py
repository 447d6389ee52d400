"""A user's own images, one folder for each split and class, read into memory once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from reweight_core import Dataset, Split, UserError
from reweight_core.images import decode
from reweight_data_noisy import FolderOptions

CHUNK = 256
"""Images that a thread reads at a stretch: handing over a task costs about as much as a small image."""

SMALL = 100 * 100
"""Pixels up to which one thread reads fastest: several would wait for Python's lock more than they decode."""


def load(config: FolderOptions) -> Dataset:
    """Load ROOT/train, and ROOT/test and ROOT/meta if there: uint8 (N, 3, H, W), or (N, 1, H, W) if all are grey.

    Images are ordered by class, then by file name; their names are paths relative to ROOT.

    Raises:
        UserError: if folders are missing or do not match, an image cannot be read, or sizes differ.
    """
    root = config.data_root
    if root is None:
        raise UserError("--data-root is missing: name the folder that holds train/")
    if not root.is_dir():
        raise UserError(f"--data-root {root}: no such folder")
    classes = _class_names(root / "train")
    parts = ["train", *(part for part in ("test", "meta") if (root / part).exists())]
    for part in parts[1:]:
        _match_classes(root / part, classes)
    listed = {part: _list_images(root, part, classes) for part in parts}

    first = listed["train"][0][0]
    read = {part: _read(root, names, first, config.image_size) for part, (names, _) in listed.items()}
    channels = 1 if all(grey for _, grey in read.values()) else 3
    splits = {
        part: Split(np.ascontiguousarray(read[part][0][:, :channels]), labels, names)
        for part, (names, labels) in listed.items()
    }
    mean, std = _mean_and_std(splits["train"].images)
    return Dataset(
        train=splits["train"],
        test=splits.get("test"),
        meta=splits.get("meta"),
        classes=tuple(classes),
        mean=mean,
        std=std,
        trusted=False,
        augment="crop-flip",
        padding=max(1, min(splits["train"].images.shape[2:]) // 8),
        padding_mode="reflect",
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """List what is visible in a folder, by name."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    try:
        with os.scandir(folder) as entries:
            visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error
    return visible


def _class_names(part: Path) -> list[str]:
    names = [entry.name for entry in _entries(part) if entry.is_dir()]
    if not names:
        raise UserError(f"{part}: has no class folders")
    return names


def _match_classes(part: Path, classes: Sequence[str]) -> None:
    found = _class_names(part)
    for name in found:
        if name not in classes:
            raise UserError(f"{part / name}: train/ has no class '{name}'")
    for name in classes:
        if name not in found:
            raise UserError(f"{part / name}: no such folder, but train/ has the class '{name}'")


def _list_images(root: Path, part: str, classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the paths of a split's images, relative to the root, and their labels, int64 (N,)."""
    names: list[str] = []
    labels: list[int] = []
    skipped = 0
    for label, name in enumerate(classes):
        folder = root / part / name
        entries = _entries(folder)
        files = [e.name for e in entries if e.name.lower().endswith(IMG_EXTENSIONS) and e.is_file()]
        skipped += len(entries) - len(files)
        if not files:
            raise UserError(f"{folder}: holds no image ({', '.join(IMG_EXTENSIONS)})")
        names += [f"{part}/{name}/{file}" for file in files]
        labels += [label] * len(files)
    if skipped:
        warnings.warn(f"{root / part}: {skipped} entries are no images by their names and are left out", stacklevel=2)
    return tuple(names), np.array(labels, dtype=np.int64)


def _read(root: Path, names: Sequence[str], first: str, image_size: int | None) -> tuple[np.ndarray, bool]:
    """Return images of the size of the first training image, uint8 (N, 3, H, W), and whether all are grey."""
    size = None if image_size is None else (image_size, image_size)
    height, width, _ = decode(f"{root}/{first}", size)[0].shape
    images = np.empty((len(names), 3, height, width), dtype=np.uint8)

    def read_from(start: int) -> bool:
        all_grey = True
        for i in range(start, min(start + CHUNK, len(names))):
            pixels, grey = decode(f"{root}/{names[i]}", size)
            if pixels.shape[:2] != (height, width):
                raise UserError(
                    f"{root}/{names[i]}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, but {root}/{first} "
                    f"is {width} x {height}; give --image-size N to bring all images to N x N"
                )
            images[i] = pixels.transpose(2, 0, 1)
            all_grey = all_grey and grey
        return all_grey

    threads = 1 if image_size is None and height * width <= SMALL else os.cpu_count()
    with ThreadPoolExecutor(threads) as pool:
        # a list first, because `all` alone would stop, and cancel the rest, at the first colour image
        all_grey = all(list(pool.map(read_from, range(0, len(names), CHUNK))))
    return images, all_grey


def _mean_and_std(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation (1 if it is constant), in pixel values.

    Pixels are counted by value: exact, and without a copy of all images in floating point.
    """
    means, deviations = [], []
    values = np.arange(256)
    for channel in range(images.shape[1]):
        # in parts, because bincount widens what it counts to eight bytes
        parts = np.array_split(images[:, channel], 64)
        share = sum(np.bincount(part.ravel(), minlength=256) for part in parts) / images[:, channel].size
        mean = float(share @ values)
        means.append(mean)
        deviations.append(float(np.sqrt(share @ (values - mean) ** 2)) or 1.0)
    return tuple(means), tuple(deviations)
