"""A user's own data listed in CSV files: images by path, or numeric features."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import attrs
import numpy as np

from reweight_core import Dataset, ImageFiles, Split, UserError
from reweight_data_noisy import CsvOptions
from reweight_data_noisy.file_lists import stays_inside
from reweight_data_noisy.image_files import open_images
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
        lines: the line of the file that each row ends in.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]

    def where(self, row: int) -> str:
        """Say where a row is, for messages."""
        return f"{self.path}, line {self.lines[row]}"


def load(config: CsvOptions) -> Dataset:
    """Load ROOT/train.csv, and ROOT/test.csv and ROOT/meta.csv if there.

    Classes are the labels of train.csv, in numeric order if all are numbers, else by name. With a column
    ``true_label``, training sees ``label`` all the same; true labels serve to judge, and clean sets have them.

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
    arrays = _images(root, tables, config) if "file" in train.columns else _features(tables)
    splits = {part: Split(arrays[part], labels[part], names[part]) for part in tables}
    of_images = "file" in train.columns
    features = len(arrays["train"][0])
    mean, std = mean_and_std(arrays["train"]) if of_images else ((0.0,) * features, (1.0,) * features)
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
            columns = tuple(name.strip() for name in reader.fieldnames or ())
            reader.fieldnames = columns
            rows, lines = [], []
            for row in reader:
                rows.append({key: value.strip() if isinstance(value, str) else value for key, value in row.items()})
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
    table = Table(path, columns, rows, lines)
    if len(set(columns)) < len(columns):
        raise UserError(f"{path}: two columns have one name ({', '.join(columns)})")
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
    if not all(name.isdecimal() for name in found):
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
            raise UserError(f"{table.path}: has no column 'file', but train.csv has")
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


def _features(tables: dict[str, Table]) -> dict[str, np.ndarray]:
    """Return the features, standardised by the training set, as images of one pixel: float32 (N, features, 1, 1)."""
    features = [name for name in tables["train"].columns if name not in COLUMNS]
    if not features:
        raise UserError(f"{tables['train'].path}: has neither a column 'file' nor columns of features")
    values = {}
    for part, table in tables.items():
        missing = [name for name in features if name not in table.columns]
        if missing:
            raise UserError(f"{table.path}: has no column '{missing[0]}', but train.csv has")
        rows = [[_number(row[name], name, table.where(i)) for name in features] for i, row in enumerate(table.rows)]
        values[part] = np.array(rows)
    # in double precision: large numbers with small differences, times for example, would lose them otherwise
    mean, std = values["train"].mean(0), values["train"].std(0)
    std[std == 0] = 1
    return {part: ((rows - mean) / std).astype(np.float32)[:, :, None, None] for part, rows in values.items()}


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} '{text}' is no finite number")
    return value
