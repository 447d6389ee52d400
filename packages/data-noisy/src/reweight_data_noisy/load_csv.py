"""A user's own data listed in CSV files: images by path, or numeric features."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import attrs
import numpy as np

from reweight_core import Dataset, Split, UserError
from reweight_data_noisy import CsvOptions
from reweight_data_noisy.image_files import read_images
from reweight_data_noisy.statistics import mean_and_std

COLUMNS = ("file", "label", "true_label", "id")
"""Columns with a meaning; where there is no ``file``, all others are numeric features."""


@attrs.frozen
class Table:
    """The rows of one file.

    Attributes:
        path: the file.
        columns: names of the columns.
        rows: one dictionary a row, by column.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]

    def where(self, row: int) -> str:
        """Say where a row is, for messages."""
        return f"{self.path}, line {row + 2}"


def load(config: CsvOptions) -> Dataset:
    """Load ROOT/train.csv, and ROOT/test.csv and ROOT/meta.csv if there.

    Classes are the labels of train.csv, in numeric order if all are numbers, else by name. With a column
    ``true_label``, which only serves to judge, labels of the clean sets are taken from it.

    Raises:
        UserError: if a file, row, label or image is wrong: with the line.
    """
    root = config.data_root
    if root is None:
        raise UserError("--data-root is missing: name the folder that holds train.csv")
    tables = {"train": _read_table(root / "train.csv")}
    tables |= {part: _read_table(root / f"{part}.csv") for part in ("test", "meta") if (root / f"{part}.csv").exists()}
    train = tables["train"]
    classes = _class_names(train)
    labels = {part: _labels(table, "label", classes) for part, table in tables.items()}
    names = {part: _names(table) for part, table in tables.items()}
    if "meta" in tables:
        _refuse_overlap(tables["meta"], names["meta"], names["train"])
    observed = None
    if "true_label" in train.columns:
        observed, labels["train"] = labels["train"], _labels(train, "true_label", classes)
    arrays = _images(root, tables, config) if "file" in train.columns else _features(tables)
    splits = {part: Split(arrays[part], labels[part], names[part]) for part in tables}
    mean, std = mean_and_std(arrays["train"])
    of_images = "file" in train.columns
    return Dataset(
        train=splits["train"],
        test=splits.get("test"),
        meta=splits.get("meta"),
        classes=tuple(classes),
        mean=mean,
        std=std,
        observed=observed,
        trusted=observed is not None,
        augment="crop-flip" if of_images else "none",
        padding=max(1, min(arrays["train"].shape[2:]) // 8),
        padding_mode="reflect",
    )


def _read_table(path: Path) -> Table:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
    table = Table(path, columns, rows)
    if "label" not in columns:
        raise UserError(f"{path}: has no column 'label' (a first line with names is needed: file,label)")
    if not rows:
        raise UserError(f"{path}: has no rows")
    for index, row in enumerate(rows):
        # DictReader marks what is too much by the key None, and what is missing by the value None
        if None in row or None in row.values():
            raise UserError(f"{table.where(index)}: does not have {len(columns)} columns")
    return table


def _class_names(train: Table) -> list[str]:
    found = {row["label"] for row in train.rows} | {row["true_label"] for row in train.rows if "true_label" in row}
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)


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
    """Return a name for each row: its id, its file, or its line; ids and files must differ."""
    for column in ("id", "file"):
        if column in table.columns:
            names = [row[column] for row in table.rows]
            seen: dict[str, int] = {}
            for index, name in enumerate(names):
                if name in seen:
                    raise UserError(f"{table.where(index)}: {column} '{name}' is in line {seen[name] + 2} too")
                seen[name] = index
            return tuple(names)
    return tuple(f"{table.path.name}:{index + 2}" for index in range(len(table.rows)))


def _refuse_overlap(meta: Table, meta_names: Sequence[str], train_names: Sequence[str]) -> None:
    common = set(train_names)
    for index, name in enumerate(meta_names):
        if name in common:
            raise UserError(
                f"{meta.where(index)}: '{name}' is in train.csv too; the meta set must be apart from training"
            )


def _images(root: Path, tables: dict[str, Table], config: CsvOptions) -> dict[str, np.ndarray]:
    names = []
    for table in tables.values():
        if "file" not in table.columns:
            raise UserError(f"{table.path}: has no column 'file', but train.csv has")
        for index, row in enumerate(table.rows):
            names.append(_checked(root, row["file"], table.where(index)))
    images = read_images(root, names, config.image_size, config.cache)
    arrays, start = {}, 0
    for part, table in tables.items():
        arrays[part] = images[start : start + len(table.rows)]
        start += len(table.rows)
    return arrays


def _checked(root: Path, name: str, where: str) -> str:
    """Return the path of an image, relative to the root, which it must not leave."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: file '{name}' must be a path inside {root}")
    if not (root / path).is_file():
        raise UserError(f"{where}: there is no file {root / path}")
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where}: file '{name}' leads out of {root}")
    return name


def _features(tables: dict[str, Table]) -> dict[str, np.ndarray]:
    """Return the features as images of one pixel, float32 (N, features, 1, 1), so that each is a channel."""
    features = [name for name in tables["train"].columns if name not in COLUMNS]
    if not features:
        raise UserError(f"{tables['train'].path}: has neither a column 'file' nor columns of features")
    arrays = {}
    for part, table in tables.items():
        missing = [name for name in features if name not in table.columns]
        if missing:
            raise UserError(f"{table.path}: has no column '{missing[0]}', but train.csv has")
        rows = [
            [_number(row[name], name, table.where(index)) for name in features] for index, row in enumerate(table.rows)
        ]
        arrays[part] = np.array(rows, dtype=np.float32)[:, :, None, None]
    return arrays


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} '{text}' is no finite number")
    return value
