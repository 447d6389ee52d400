"""Large datasets that come as image files and lists of them: read while training, checked before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import attrs
import numpy as np

from reweight_core import IMAGENET_MEAN, IMAGENET_STD, Dataset, ImageFiles, Split, UserError


@attrs.frozen
class Listed:
    """Images of one split as lists name them.

    Attributes:
        names: paths relative to the dataset's root.
        labels: class indices.
        source: the list they are from, for messages.
    """

    names: Sequence[str]
    labels: Sequence[int]
    source: Path


def data_root(root: Path | None, needed: str) -> Path:
    """Return the folder of a dataset.

    Raises:
        UserError: if none was given or it is not there; `needed` says what it must hold.
    """
    if root is None:
        raise UserError(f"--data-root is missing: name the folder that holds {needed}")
    if not root.is_dir():
        raise UserError(f"--data-root {root}: no such folder (it must hold {needed})")
    return root


def read_lines(path: Path, needed: str) -> list[str]:
    """Return the lines of a list, blanks at their ends removed.

    Raises:
        UserError: if it cannot be read or is empty; `needed` says what its folder must hold.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: --data-root must hold {needed}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not any(lines):
        raise UserError(f"{path}: is empty")
    return lines


def read_labels(path: Path, classes: int, needed: str) -> dict[str, int]:
    """Read a list of lines ``FILE LABEL``: the class index of every file, in the list's order.

    Raises:
        UserError: if it cannot be read, a line is something else, or a label is outside 0..classes-1.
    """
    labels = {}
    for number, line in enumerate(read_lines(path, needed), start=1):
        if not line:
            continue
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal():
            raise UserError(f"{path}, line {number}: '{line}' must be a file and its label")
        if int(label) >= classes:
            raise UserError(f"{path}, line {number}: label {label} is outside 0..{classes - 1}")
        labels[name.strip()] = int(label)
    return labels


def dataset_of(
    root: Path,
    parts: Mapping[str, Listed],
    classes: Sequence[str],
    image_size: int,
    trusted: bool = False,
) -> Dataset:
    """Return a dataset whose images are read while training, with ImageNet's statistics and random crops.

    Args:
        root: the folder that the names are relative to.
        parts: ``train``, and ``test`` and ``meta`` if there are any.
        classes: class names.
        image_size: side that images are brought to.
        trusted: whether the training labels are known to be true.

    Raises:
        UserError: if a file is missing or would lie outside the root, or a split repeats a file or shares one with
            the training set.
    """
    training = set(parts["train"].names)
    for part, listed in parts.items():
        _refuse_strays(root, listed)
        if len(set(listed.names)) < len(listed.names):
            raise UserError(f"{listed.source}: names a file twice")
        shared = () if part == "train" else [name for name in listed.names if name in training]
        if shared:
            raise UserError(f"{listed.source}: {shared[0]} is in {parts['train'].source} too; they must be apart")
    _refuse_missing(root, parts.values())
    splits = {
        part: Split(
            ImageFiles(root, np.array(listed.names, dtype=object), image_size),
            np.array(listed.labels, dtype=np.int64),
            tuple(listed.names),
        )
        for part, listed in parts.items()
    }
    return Dataset(
        train=splits["train"],
        test=splits.get("test"),
        meta=splits.get("meta"),
        classes=tuple(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        trusted=trusted,
        augment="resized-crop",
    )


def stays_inside(name: str) -> bool:
    """Whether a path that a list names is relative and never goes up."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def _refuse_strays(root: Path, listed: Listed) -> None:
    for name in listed.names:
        if not stays_inside(name):
            raise UserError(f"{listed.source}: file '{name}' must be a path inside {root}")


def _refuse_missing(root: Path, parts: Iterable[Listed]) -> None:
    """Refuse lists with files that are not there; every folder is listed once, which takes seconds for a million."""
    for listed in parts:
        wanted: dict[str, list[str]] = {}
        for name in listed.names:
            folder, _, file = name.rpartition("/")
            wanted.setdefault(folder, []).append(file)
        missing = []
        for folder, files in wanted.items():
            try:
                there = {path.name for path in (root / folder).iterdir()}
            except OSError:
                there = set()
            missing += [f"{folder}/{file}" for file in files if file not in there]
        if missing:
            raise UserError(
                f"{listed.source}: {len(missing)} of its {len(listed.names)} images are not below {root}, "
                f"{missing[0]} for example"
            )
