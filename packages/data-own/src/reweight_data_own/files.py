"""Which files, and which arrays or columns of them, hold the features and the labels of a part."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from reweight_core import UserError
from reweight_data_own.arrays import SUFFIXES, Entry, entries
from reweight_data_own.labels import checked
from reweight_data_own.lines import lines_of
from reweight_data_own.options import FeaturesOptions
from reweight_data_own.parquet import PARQUET, ParquetTable


def count_rows(config: FeaturesOptions) -> int:
    """Return how many rows the training set has, from the header of its file; 0 if there are none.

    Raises:
        UserError: if it cannot be read.
    """
    file = find_file(data_root(config), "train")
    if file is None:
        return 0
    if file.suffix == PARQUET:
        return len(ParquetTable.open(file))
    entry = feature_entry(file, config.feature_column)
    return entry.shape[0] if len(entry.shape) == 2 else 0


def data_root(config: FeaturesOptions) -> Path:
    """Return the folder of the arrays.

    Raises:
        UserError: if none was given or it is not there.
    """
    if config.data_root is None:
        raise UserError("--data-root is missing: name the folder that holds train.npy, .npz, .safetensors or .parquet")
    if not config.data_root.is_dir():
        raise UserError(f"--data-root {config.data_root}: no such folder")
    return config.data_root


def find_file(root: Path, part: str) -> Path | None:
    """Return the file of a part's features, or None.

    Raises:
        UserError: if there are several.
    """
    found = [file for suffix in (*SUFFIXES, PARQUET) if (file := root / f"{part}{suffix}").is_file()]
    if len(found) > 1:
        raise UserError(f"{found[0]}: {found[1].name} is there too; keep one of them")
    return found[0] if found else None


def feature_entry(file: Path, wanted: Sequence[str]) -> Entry:
    """Return the array of a file that holds features.

    Args:
        file: the file.
        wanted: its name, or nothing for the only one of two dimensions.

    Raises:
        UserError: if there is none of this name, or several of two dimensions.
    """
    found = entries(file)
    if len(wanted) > 1:
        raise UserError(f"--feature-column: {file.name} has its features in one array; name it alone")
    if wanted and set(found) != {""}:
        if wanted[0] not in found:
            raise UserError(f"{file}: has no array '{wanted[0]}' ({', '.join(found)})")
        return found[wanted[0]]
    tables = [entry for entry in found.values() if len(entry.shape) == 2 or set(found) == {""}]
    if len(tables) > 1:
        names = ", ".join(entry.name for entry in tables)
        raise UserError(f"{file}: has several arrays of two dimensions ({names}); name one by --feature-column")
    if not tables:
        shapes = ", ".join(f"{entry.name} {entry.shape}".strip() for entry in found.values())
        raise UserError(f"{file}: has no array of two dimensions, rows and columns ({shapes or 'it is empty'})")
    return tables[0]


def labels_of(file: Path, wanted: str | None, known: Collection[str], beside: str, rows: int) -> np.ndarray | None:
    """Return the labels of a file's rows, inside it or beside it, or None.

    Args:
        file: the file of the features.
        wanted: their name in it, or None for one of those that are known.
        known: names that they may have.
        beside: how the name of a file of their own ends.
        rows: how many there must be.

    Raises:
        UserError: if they are in two places, or cannot be read.
    """
    inside = _inside(file)
    names = [name for name in ([wanted] if wanted else known) if name in inside]
    files = [path for suffix in (".npy", ".txt") if (path := file.with_name(f"{file.stem}_{beside}{suffix}")).is_file()]
    places = [*(f"{file.name}, {name}" for name in names), *(path.name for path in files)]
    if len(places) > 1:
        raise UserError(f"{file}: its {beside.replace('_', ' ')} are in two places: {places[0]} and {places[1]}")
    if names:
        table = inside[names[0]]
        return checked(
            table.read() if isinstance(table, Entry) else table.vector(names[0]), rows, f"{file}, {names[0]}"
        )
    if files:
        return checked(_beside(files[0]), rows, str(files[0]))
    return None


def _inside(file: Path) -> dict[str, Entry | ParquetTable]:
    """Return what a file holds by name."""
    if file.suffix == PARQUET:
        table = ParquetTable.open(file)
        return dict.fromkeys(table.columns, table)
    return dict(entries(file))


def _beside(path: Path) -> np.ndarray:
    """Read labels from a file of their own."""
    if path.suffix == ".npy":
        return entries(path)[""].read()
    return np.array(lines_of(path), dtype=np.str_)
