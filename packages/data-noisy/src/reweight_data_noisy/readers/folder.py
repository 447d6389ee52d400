"""A user's own images, one folder for each split and class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from reweight_core import Dataset, Split, UserError, mean_and_std
from reweight_data_noisy.options import FolderOptions
from reweight_data_noisy.readers.file_lists import data_root
from reweight_data_noisy.readers.image_files import open_images

SHOWN = 3
"""Names of what is left out that a warning lists."""


def load(config: FolderOptions) -> Dataset:
    """Load ROOT/train, and ROOT/test and ROOT/meta if there: uint8 (N, 3, H, W), or (N, 1, H, W) if all are grey.

    Images are ordered by class, then by file name; their names are paths relative to ROOT.

    Raises:
        UserError: if folders are missing or do not match, an image cannot be read, or sizes differ.
    """
    root = data_root(config.data_root, "train/")
    if not (root / "train").exists() and root.absolute().parent.joinpath("train").is_dir():
        raise UserError(f"--data-root {root}: holds no train/; give the folder above it, which does")
    classes = _class_names(root / "train")
    parts = ["train", *(part for part in ("test", "meta") if (root / part).exists())]
    for part in parts[1:]:
        _match_classes(root / part, classes)
    listed = {part: _list_images(root, part, classes) for part in parts}

    names = [name for part in listed.values() for name in part[0]]
    images = open_images(root, names, config)
    splits, start = {}, 0
    for part, (names_of_part, labels) in listed.items():
        splits[part] = Split(images[start : start + len(labels)], labels, names_of_part)
        start += len(labels)
    mean, std = mean_and_std(splits["train"].images)
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
    for entry in visible:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{folder}: the name {os.fsencode(entry.name)!r} is not UTF-8; rename it") from None
    return visible


def _class_names(part: Path) -> list[str]:
    names = [entry.name for entry in _entries(part) if _is_folder(entry)]
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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise UserError(f"{entry.path}: cannot be opened ({error.strerror})") from error


def _is_image(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.name.lower().endswith(IMG_EXTENSIONS) and entry.is_file()
    except OSError:
        # a link that leads to itself
        return False


def _list_images(root: Path, part: str, classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the paths of a split's images, relative to the root, and their labels, int64 (N,)."""
    names: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for label, name in enumerate(classes):
        folder = root / part / name
        entries = _entries(folder)
        files = [entry.name for entry in entries if _is_image(entry)]
        others += [f"{name}/{entry.name}" for entry in entries if not _is_image(entry)]
        if not files:
            raise UserError(f"{folder}: holds no image ({', '.join(IMG_EXTENSIONS)})")
        names += [f"{part}/{name}/{file}" for file in files]
        labels += [label] * len(files)
    if others:
        shown = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        warnings.warn(
            f"{root / part}: {len(others)} entries are no image files by their names ({', '.join(IMG_EXTENSIONS)}) "
            f"and are left out: {shown}",
            stacklevel=2,
        )
    return tuple(names), np.array(labels, dtype=np.int64)
