"""Rows of features that stay where they are, in a mapped file or an array: batches are gathered, nothing is copied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from reweight_core.data.mapped_array import MappedArray
from reweight_core.errors import UserError
from reweight_core.machine.device import total_memory

CHUNK = 512
"""Rows that are gone through at a time: in double precision some megabytes, which the processor keeps at hand."""


@attrs.frozen(eq=False)
class FeatureRows:
    """Some rows of arrays of features: stands where a split has an array (N, features, 1, 1).

    Attributes:
        parts: arrays (rows, features) of numbers, whose rows are counted on from one to the next.
        positions: which rows these are, int64 (N,); None for all of them.
    """

    parts: tuple[np.ndarray | MappedArray, ...]
    positions: np.ndarray | None = None
    ndim = 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type that holds the numbers of all parts."""
        return np.result_type(*(part.dtype for part in self.parts))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that the rows would make."""
        return len(self), self.parts[0].shape[1], 1, 1

    @property
    def nbytes(self) -> int:
        """Bytes of the array that the rows would make."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def slow(self) -> bool:
        """Whether they are in files that the memory would hardly hold, so that rows come from the disk."""
        mapped = [part for part in self.parts if isinstance(part, MappedArray)]
        return sum(math.prod(part.shape) * part.dtype.itemsize for part in mapped) > total_memory() / 2

    def __len__(self) -> int:
        return sum(part.shape[0] for part in self.parts) if self.positions is None else len(self.positions)

    def __getitem__(self, ids: np.ndarray | slice) -> FeatureRows:
        return attrs.evolve(self, positions=(np.arange(len(self)) if self.positions is None else self.positions)[ids])

    def followed_by(self, other: FeatureRows) -> FeatureRows:
        """Return these rows with another set's behind them."""
        ours, theirs = (np.arange(len(rows)) if rows.positions is None else rows.positions for rows in (self, other))
        if [*map(id, self.parts)] == [*map(id, other.parts)]:
            return attrs.evolve(self, positions=np.concatenate([ours, theirs]))
        offset = sum(part.shape[0] for part in self.parts)
        return FeatureRows(self.parts + other.parts, np.concatenate([ours, offset + theirs]))

    def read(self, ids: np.ndarray, seed: Sequence[int] | None = None) -> np.ndarray:
        """Gather the rows at positions `ids` (n,), as they are stored: (n, features, 1, 1). `seed` changes nothing."""
        places = ids if self.positions is None else self.positions[ids]
        if len(self.parts) == 1:
            rows = _array(self.parts[0]).take(places, axis=0)
        else:
            rows = np.empty((len(places), self.shape[1]), self.dtype)
            start = 0
            for part in self.parts:
                inside = (places >= start) & (places < start + part.shape[0])
                rows[inside] = _array(part).take(places[inside] - start, axis=0)
                start += part.shape[0]
        return rows[:, :, None, None]

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Go through the rows in order, some at a time: (n, features), as they are stored."""
        if self.positions is None and len(self.parts) == 1:
            whole = _array(self.parts[0])
            yield from (whole[start : start + size] for start in range(0, len(whole), size))
            return
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))[:, :, 0, 0]

    def marks(self) -> Iterator[bytes]:
        """Give the numbers of the rows."""
        yield from (chunk.tobytes() for chunk in self.chunks())


def _array(part: np.ndarray | MappedArray) -> np.ndarray:
    return part.array if isinstance(part, MappedArray) else part


def exact_type(stored: np.dtype[Any], dtype: torch.dtype) -> torch.dtype:
    """Return the type in which stored numbers are standardised to give batches of `dtype`.

    Where they have more digits than single precision they are standardised in double: large numbers with small
    differences, times for example, would lose them otherwise.
    """
    return dtype if np.can_cast(stored, np.float32) else torch.float64


def column_statistics(rows: FeatureRows, source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean of each column and its standard deviation, 1 if it is constant, in one pass.

    The sums of chunks are put together as in Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979), eq. 2.1.

    Args:
        rows: the training set.
        source: where they are from, for messages.

    Raises:
        UserError: if a value is no finite number.
    """
    count, mean, squares = 0, torch.zeros(rows.shape[1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    low = high = torch.empty(0)
    for chunk in rows.chunks():
        values = _tensor(chunk, exact_type(rows.dtype, torch.float32))
        of_chunk, deviations = _moments(values)
        if not bool((of_chunk + deviations).isfinite().all()):
            _refuse_not_finite(chunk, count, source)
            # squares may be too large for single precision
            of_chunk, deviations = _moments(values.double())
        least, most = values.amin(0), values.amax(0)
        low, high = (least, most) if count == 0 else (torch.minimum(low, least), torch.maximum(high, most))
        n, step = len(chunk), of_chunk.double() - mean
        squares = squares + deviations.double() + step**2 * (count * n / (count + n))
        mean, count = mean + step * (n / (count + n)), count + n
    std = (squares / count).sqrt()
    # the deviation of equal values is rarely 0 exactly: their mean is rounded
    constant = (low == high) | (std == 0)
    mean, std = torch.where(constant, low.double(), mean), torch.where(constant, 1.0, std)
    return tuple(mean.tolist()), tuple(std.tolist())


def refuse_unusable(rows: FeatureRows, mean: Sequence[float], std: Sequence[float], source: str) -> None:
    """Refuse rows with a value that is no finite number, or far too large to be standardised.

    Args:
        rows: of a test or a meta set.
        mean: of each column of the training set.
        std: of each column of the training set.
        source: where the rows are from, for messages.
    """
    exact, start = exact_type(rows.dtype, torch.float32), 0
    center, scale = torch.tensor(mean, dtype=exact), torch.tensor(std, dtype=exact)
    for chunk in rows.chunks():
        standardised = ((_tensor(chunk, exact) - center) / scale).float()
        if not bool(standardised.isfinite().all()):
            _refuse_not_finite(chunk, start, source)
            row, column = (~standardised.isfinite()).nonzero()[0].tolist()
            raise UserError(f"{source}, row {start + row}, column {column}: {chunk[row, column]:g} is too large")
        start += len(chunk)


def _tensor(chunk: np.ndarray, dtype: torch.dtype) -> Tensor:
    # of a copy, because torch warns of rows that must not be written to
    return torch.from_numpy(np.array(chunk)).to(dtype)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each column and the sum of the squared deviations from it."""
    mean = values.mean(0)
    return mean, (values - mean).square_().sum(0)


def _refuse_not_finite(chunk: np.ndarray, start: int, source: str) -> None:
    wrong = np.argwhere(~np.isfinite(chunk))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(f"{source}, row {start + row}, column {column}: {chunk[row, column]} is no finite number")
