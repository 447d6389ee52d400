"""Tables of numeric features: CSV files read, and columns standardised by the training set."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from reweight_core.errors import UserError

SHOWN = 5
"""Columns that an error lists."""

LARGEST = 1e150
"""Feature whose square can still be added up in double precision."""


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

    def lacks(self, column: str, why: str = "") -> UserError:
        """Return the error for a column that is not there.

        Args:
            column: its name.
            why: why it is needed, to follow the name.
        """
        (first, *more), beginning = self.columns, f"{self.path}: has no column '{column}'"
        for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if not more and separator in first:
                return UserError(f"{beginning}: its columns are separated by {name}, and must be by commas")
        alike = next((name for name in self.columns if name.lower() == column.lower()), None)
        if alike is not None:
            return UserError(f"{beginning}: rename '{alike}'")
        shown = ", ".join(self.columns[:SHOWN]) + (", ..." if len(self.columns) > SHOWN else "")
        return UserError(f"{beginning}{why}; it has {shown}")


def read_table(path: Path) -> Table:
    """Read a file of UTF-8; blanks around names and values do not count.

    Raises:
        UserError: if it cannot be read, has no rows or two columns of one name, or a row has too few or many values.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = tuple(name.strip() for name in reader.fieldnames or ())
            reader.fieldnames = columns
            rows, lines = [], []
            for row in reader:
                rows.append({key: value.strip() if isinstance(value, str) else value for key, value in row.items()})
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); save it in UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); is a quote left open?") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read as CSV ({error.strerror})") from error
    table = Table(path, columns, rows, lines)
    if len(set(columns)) < len(columns):
        raise UserError(f"{path}: two columns have one name ({', '.join(columns)})")
    if not rows:
        raise UserError(f"{path}: has no rows below a first line of column names")
    for index, row in enumerate(rows):
        # DictReader marks what is too much by the key None, and what is missing by the value None
        if None in row or None in row.values():
            raise UserError(f"{table.where(index)}: does not have {len(columns)} columns")
    return table


@attrs.frozen
class Features:
    """Which columns a network gets, and how they are standardised: (value - mean) / std.

    Attributes:
        names: the columns, in the order of the network's inputs.
        mean: of each column over the training set.
        std: of each column over the training set, 1 if it is constant.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, names: Sequence[str], values: np.ndarray) -> Features:
        """Return the features that values (N, features) of the training set give."""
        # the deviation of equal values is rarely 0 exactly: their mean is rounded
        std = values.std(0)
        constant = (values.min(0) == values.max(0)) | (std == 0)
        mean, std = np.where(constant, values[0], values.mean(0)), np.where(constant, 1, std)
        return cls(tuple(names), tuple(mean.tolist()), tuple(std.tolist()))

    def standardise(self, values: np.ndarray, source: Path) -> np.ndarray:
        """Return values (N, features) as images of one pixel: float32 (N, features, 1, 1).

        Args:
            values: the features.
            source: where they are from, for messages.

        Raises:
            UserError: if a value is too large to be one.
        """
        # in double precision: large numbers with small differences, times for example, would lose them otherwise
        standardised = (values - np.array(self.mean)) / np.array(self.std)
        too_large = np.argwhere(np.abs(standardised) > np.finfo(np.float32).max)
        if len(too_large):
            row, column = too_large[0]
            raise UserError(f"{source}, row {row + 1}: {self.names[column]} {values[row, column]:g} is too large")
        return standardised.astype(np.float32)[:, :, None, None]


def read_values(table: Table, names: Sequence[str]) -> np.ndarray:
    """Return some columns of a table, float64 (N, features).

    Raises:
        UserError: if one is missing, or holds something else than finite numbers.
    """
    for name in names:
        if name not in table.columns:
            raise table.lacks(name, ", which is a feature of the training set")
    return np.array([[_number(row[name], name, table.where(i)) for name in names] for i, row in enumerate(table.rows)])


def _number(text: str, column: str, where: str) -> float:
    try:
        # Python's numbers may have underscores
        value = float(text.replace("_", "?"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} '{text}' is no finite number")
    if abs(value) > LARGEST:
        raise UserError(f"{where}: {column} '{text}' is too large; give it in another unit")
    return value
