"""Weights that the user gives the training examples, from a file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from reweight_core.data.features import read_table
from reweight_core.data.prepare import PreparedData
from reweight_core.errors import UserError


def read_weights(path: Path, data: PreparedData) -> np.ndarray:
    """Read the weights of the training examples, float32 (N,): 1 for those that the file does not name.

    Args:
        path: CSV file with the columns ``id`` (position in the dataset's training set) and ``weight``; others do not
            matter.
        data: the data of the run; planted and trusted examples have weight 1.

    Raises:
        UserError: if it cannot be read, a line is wrong, or it names no training example, or leaves none a weight.
    """
    table = read_table(path)
    for column in ("id", "weight"):
        if column not in table.columns:
            raise UserError(f"--weights {table.lacks(column, ' (columns id and weight are needed)')}")
    given: dict[int, float] = {}
    for index, row in enumerate(table.rows):
        try:
            identity, weight = int(row["id"]), float(row["weight"])
        except ValueError:
            identity, weight = -1, math.nan
        if identity < 0 or not 0 <= weight < math.inf:
            raise UserError(
                f"--weights {table.where(index)}: must have a position as its id and a number from 0 on as its weight"
            )
        if identity in given:
            raise UserError(f"--weights {table.where(index)}: id {identity} has a weight already")
        given[identity] = weight
    further = np.zeros(len(data.train), dtype=bool)
    for part in (data.planted, data.trusted):
        if part is not None:
            further |= part
    weights = [1.0 if added else given.get(int(i), 1.0) for i, added in zip(data.ids, further, strict=True)]
    if not given.keys() & set(data.ids[~further].tolist()):
        raise UserError(f"--weights {path}: names no example of the training set; it is for other data")
    if not any(weights):
        raise UserError(f"--weights {path}: every training example has weight 0")
    return np.array(weights, dtype=np.float32)
