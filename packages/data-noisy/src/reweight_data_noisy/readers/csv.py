"""A user's own data listed in CSV files: images by path, or numeric features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from reweight_core import Dataset, Features, ImageFiles, Split, Table, UserError, mean_and_std, read_table, read_values
from reweight_data_noisy.options import CsvOptions
from reweight_data_noisy.readers.file_lists import data_root, stays_inside
from reweight_data_noisy.readers.image_files import open_images

COLUMNS = ("file", "label", "true_label", "id")
"""Columns with a meaning; where there is no ``file``, all others are numeric features."""

MOST_DIGITS = 18
"""Of labels that are numbers; longer ones are names."""


def load(config: CsvOptions) -> Dataset:
    """Load ROOT/train.csv, and ROOT/test.csv and ROOT/meta.csv if there.

    Classes are the labels of train.csv, in numeric order if all are numbers, else by name. With a column
    ``true_label``, training sees ``label`` all the same; true labels serve to judge, and clean sets have them.

    Raises:
        UserError: if a file, row, label or image is wrong: with the line.
    """
    root = data_root(config.data_root, "train.csv")
    parts = ["train", *(part for part in ("test", "meta") if (root / f"{part}.csv").exists())]
    tables = {part: _read_labelled(root / f"{part}.csv") for part in parts}
    train = tables["train"]
    classes = _class_names(train)
    labels = {
        part: _labels(table, "true_label" if "true_label" in table.columns else "label", classes)
        for part, table in tables.items()
    }
    observed = _labels(train, "label", classes) if "true_label" in train.columns else None
    for table in tables.values():
        _refuse_repetition(table)
    for part in tables.keys() - {"train"}:
        _refuse_overlap(tables[part], train)
    names = {part: _names(table) for part, table in tables.items()}
    arrays: Mapping[str, np.ndarray | ImageFiles]
    if "file" in train.columns:
        features, arrays = None, _images(root, tables, config)
        mean, std = mean_and_std(arrays["train"])
    else:
        features, arrays = _features(tables)
        mean, std = (0.0,) * len(features.names), (1.0,) * len(features.names)
    splits = {part: Split(arrays[part], labels[part], names[part]) for part in tables}
    return Dataset(
        train=splits["train"],
        test=splits.get("test"),
        meta=splits.get("meta"),
        classes=tuple(classes),
        mean=mean,
        std=std,
        observed=observed,
        trusted=observed is not None,
        augment="none" if features else "crop-flip",
        padding=max(1, min(arrays["train"].shape[2:]) // 8),
        features=features,
    )


def _read_labelled(path: Path) -> Table:
    table = read_table(path)
    if "label" not in table.columns:
        raise table.lacks("label", " (a first line with names is needed, file,label for images)")
    return table


def _class_names(train: Table) -> list[str]:
    found = {row["label"] for row in train.rows} | {row["true_label"] for row in train.rows if "true_label" in row}
    if not all(name.isdecimal() and len(name) <= MOST_DIGITS for name in found):
        return sorted(found)
    names = sorted(found, key=lambda name: (int(name), name))
    for one, other in pairwise(names):
        if int(one) == int(other):
            raise UserError(f"{train.path}: the labels '{one}' and '{other}' are the same number")
    return names


def _labels(table: Table, column: str, classes: Sequence[str]) -> np.ndarray:
    index_of = {name: index for index, name in enumerate(classes)}
    labels = []
    for index, row in enumerate(table.rows):
        name = row[column]
        if not name:
            raise UserError(f"{table.where(index)}: {column} is empty")
        if name not in index_of:
            raise UserError(f"{table.where(index)}: {column} '{name}' is no label of train.csv")
        labels.append(index_of[name])
    return np.array(labels, dtype=np.int64)


def _names(table: Table) -> tuple[str, ...]:
    """Return a name for each row: its id, its file, or its line."""
    for column in ("id", "file"):
        if column in table.columns:
            return tuple(row[column] for row in table.rows)
    return tuple(f"{table.path.name}:{line}" for line in table.lines)


def _identities(table: Table, column: str) -> list[str]:
    """Return what tells the rows apart: ids, or files by their shortest spelling."""
    return [str(PurePosixPath(row[column])) if column == "file" else row[column] for row in table.rows]


def _refuse_repetition(table: Table) -> None:
    for column in {"id", "file"} & set(table.columns):
        seen: dict[str, int] = {}
        for index, name in enumerate(_identities(table, column)):
            if name in seen:
                raise UserError(f"{table.where(index)}: {column} '{name}' is in line {table.lines[seen[name]]} too")
            seen[name] = index


def _refuse_overlap(table: Table, train: Table) -> None:
    for column in {"id", "file"} & set(table.columns) & set(train.columns):
        common = set(_identities(train, column))
        for index, name in enumerate(_identities(table, column)):
            if name in common:
                raise UserError(f"{table.where(index)}: {column} '{name}' is in train.csv too; they must be apart")


def _images(root: Path, tables: dict[str, Table], config: CsvOptions) -> dict[str, np.ndarray | ImageFiles]:
    names = []
    for table in tables.values():
        if "file" not in table.columns:
            raise table.lacks("file", ", but train.csv has")
        for index, row in enumerate(table.rows):
            names.append(_checked(root, row["file"], table.where(index)))
    images = open_images(root, names, config)
    arrays, start = {}, 0
    for part, table in tables.items():
        arrays[part] = images[start : start + len(table.rows)]
        start += len(table.rows)
    return arrays


def _checked(root: Path, name: str, where: str) -> str:
    """Return the path of an image, relative to the root, which it must not leave."""
    path = PurePosixPath(name)
    if not stays_inside(name):
        raise UserError(f"{where}: file '{name}' must be a path inside {root}")
    try:
        exists = (root / path).is_file()
    except OSError as error:
        raise UserError(f"{where}: file '{name}' cannot be found ({error.strerror})") from error
    if not exists:
        raise UserError(f"{where}: there is no file {root / path}")
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where}: file '{name}' leads out of {root}")
    return str(path)


def _features(tables: dict[str, Table]) -> tuple[Features, dict[str, np.ndarray]]:
    """Return the features and their values in each table, as images of one pixel: float32 (N, features, 1, 1)."""
    names = [name for name in tables["train"].columns if name not in COLUMNS]
    if not names:
        raise UserError(f"{tables['train'].path}: has neither a column 'file' nor columns of features")
    values = {part: read_values(table, names) for part, table in tables.items()}
    features = Features.of(names, values["train"])
    return features, {part: features.standardise(rows, tables[part].path) for part, rows in values.items()}
