"""Numeric features of examples: columns of a table, standardised by the training set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from reweight_core.csv_table import Table
from reweight_core.errors import UserError


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
            raise UserError(f"{table.path}: has no column '{name}', which is a feature of the training set")
    return np.array([[_number(row[name], name, table.where(i)) for name in names] for i, row in enumerate(table.rows)])


def _number(text: str, column: str, where: str) -> float:
    try:
        # Python's numbers may have underscores
        value = float(text.replace("_", "?"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} '{text}' is no finite number")
    return value
