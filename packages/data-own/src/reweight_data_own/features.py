"""A user's own embeddings and tables: arrays that are mapped where they lie, with labels inside or beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from reweight_core import Dataset, FeatureRows, MappedArray, UserError
from reweight_data_own.arrays import SUFFIXES
from reweight_data_own.assembly import dataset_of_rows
from reweight_data_own.files import data_root, feature_entry, find_file, labels_of
from reweight_data_own.labels import LABEL_NAMES, TRUE_LABEL_NAMES, Labels, index
from reweight_data_own.options import FeaturesOptions
from reweight_data_own.parquet import PARQUET, ParquetTable

ID = "id"
"""The column of Parquet whose values are names of the rows."""


@attrs.frozen(eq=False)
class Part:
    """What the files of one part of a dataset hold.

    Attributes:
        rows: its features.
        labels: its labels.
        names: a name for each row, or None.
    """

    rows: FeatureRows
    labels: Labels
    names: tuple[str, ...] | None


def load(config: FeaturesOptions) -> Dataset:
    """Load ROOT/train, and ROOT/test and ROOT/meta if there, each .npy, .npz, .safetensors or .parquet.

    The features stay where they are and are standardised batch by batch, by the training set. Classes are its labels,
    in numeric order if all are numbers, else by name. Where there are true labels too, training sees the others all
    the same; true labels serve to judge, and clean sets have them.

    Raises:
        UserError: if a file, an array, a value or a label is wrong: with its place.
    """
    root = data_root(config)
    files = {part: file for part in ("train", "test", "meta") if (file := find_file(root, part)) is not None}
    if "train" not in files:
        raise UserError(f"{root}: holds no train{', train'.join((*SUFFIXES, PARQUET))}")
    columns = _columns_of_train(files["train"], config)
    parts = {part: _read(file, config, columns) for part, file in files.items()}
    train = parts["train"]
    width = train.rows.shape[1]
    for part, read in parts.items():
        if read.rows.shape[1] != width:
            raise UserError(f"{files[part]}: has {read.rows.shape[1]} features, but {files['train']} has {width}")
    if "meta" in parts:
        _refuse_overlap(parts["meta"], train)
    classes, labels = index({part: read.labels for part, read in parts.items()})
    rows = {part: read.rows for part, read in parts.items()}
    names = {part: read.names for part, read in parts.items()}
    return dataset_of_rows(rows, labels, names, classes)


def read_new(config: FeaturesOptions, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read rows without labels: (N, features, 1, 1), and their names: FILE:ROW, or what the column ``id`` says.

    Columns of Parquet are those of the training set by their names, which its file says if no option does.

    Raises:
        UserError: if the file holds no features, or lacks a column of the training set.
    """
    if path.suffix not in (*SUFFIXES, PARQUET):
        raise UserError(f"{path}: features are read from {', '.join(SUFFIXES)} and {PARQUET}")
    columns: Sequence[str] = config.feature_column
    if path.suffix == PARQUET and not columns:
        root = data_root(config)
        train = find_file(root, "train")
        if train is None:
            raise UserError(f"{root}: holds no train{PARQUET} any more, whose columns {path} must have; bring it back")
        columns = _columns_of_train(train, config)
    rows, names = _rows_of(path, config, columns)
    values = rows.read(np.arange(len(rows)))
    exact = np.float32 if np.can_cast(values.dtype, np.float32) else np.float64
    return values.astype(exact), names or tuple(f"{path}:{row}" for row in range(len(rows)))


def _read(file: Path, config: FeaturesOptions, columns: Sequence[str]) -> Part:
    rows, names = _rows_of(file, config, columns)
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"{file}: two rows have one {ID}")
    seen = labels_of(file, config.label_column, LABEL_NAMES, "labels", len(rows))
    if seen is None:
        raise UserError(
            f"{file}: has no labels: put them into it ({', '.join(LABEL_NAMES)}, or --label-column), or beside it as "
            f"{file.stem}_labels.npy or {file.stem}_labels.txt"
        )
    true = labels_of(file, config.true_label_column, TRUE_LABEL_NAMES, "true_labels", len(rows))
    return Part(rows, Labels(seen, true, str(file)), names)


def _refuse_overlap(meta: Part, train: Part) -> None:
    known = set(train.names or ())
    for row, name in enumerate(meta.names or ()):
        if name in known:
            raise UserError(
                f"{meta.labels.source}, row {row}: {ID} '{name}' is in the training set too; they must be apart"
            )


def _columns_of_train(file: Path, config: FeaturesOptions) -> Sequence[str]:
    """Return which columns of Parquet are features, in the order of the training set's; none if it is an array."""
    if config.feature_column or file.suffix != PARQUET:
        return config.feature_column
    return _columns_in(ParquetTable.open(file), config)


def _columns_in(table: ParquetTable, config: FeaturesOptions) -> Sequence[str]:
    others = {config.label_column, config.true_label_column, *LABEL_NAMES, *TRUE_LABEL_NAMES, ID, *table.index}
    columns = [name for name in table.columns if name not in others]
    if not columns:
        raise UserError(f"{table.path}: has no columns of features beside labels")
    return columns


def _rows_of(file: Path, config: FeaturesOptions, columns: Sequence[str]) -> tuple[FeatureRows, tuple[str, ...] | None]:
    """Return the features of a file, and the names of its rows if it has any.

    Args:
        file: the file.
        config: what its arrays and columns are called.
        columns: of the features in Parquet; none for all that it has.
    """
    array: np.ndarray | MappedArray
    if file.suffix != PARQUET:
        array = feature_entry(file, config.feature_column).rows()
        return FeatureRows((array,)), None
    table = ParquetTable.open(file)
    for name in columns:
        if name not in table.columns:
            raise UserError(f"{file}: has no column '{name}', which is a feature of the training set")
    names = tuple(map(str, table.vector(ID).tolist())) if ID in table.columns else None
    return FeatureRows((table.rows(columns or _columns_in(table, config)),)), names
