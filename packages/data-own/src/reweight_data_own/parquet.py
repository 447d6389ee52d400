"""Tables in Parquet files: columns of numbers, or one column of embeddings, read into memory some rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from reweight_core import UserError, total_memory

PARQUET = ".parquet"

ROWS = 8192
"""Rows that are read at a time."""


@attrs.frozen(eq=False)
class ParquetTable:
    """An open Parquet file.

    Attributes:
        path: the file.
        file: as pyarrow opens it.
    """

    path: Path
    file: Any

    @classmethod
    def open(cls, path: Path) -> ParquetTable:
        """Open a file.

        Raises:
            UserError: if pyarrow is not installed, or the file cannot be read or has no rows.
        """
        try:
            import pyarrow.parquet as pq
        except ImportError as error:
            raise UserError(
                f"{path}: Parquet is read by pyarrow: pip install 'reweight-data-own[parquet]' ({error})"
            ) from error
        with _told_of(path):
            table = cls(path, pq.ParquetFile(path, memory_map=True))
        if not len(table):
            raise UserError(f"{path}: has no rows")
        return table

    def __len__(self) -> int:
        rows: int = self.file.metadata.num_rows
        return rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        names: list[str] = self.file.schema_arrow.names
        return names

    @property
    def index(self) -> list[str]:
        """Names of the columns that pandas keeps the labels of its rows in."""
        try:
            content = json.loads((self.file.schema_arrow.metadata or {}).get(b"pandas", b"{}"))
            return [name for name in content.get("index_columns", []) if isinstance(name, str)]
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(f"{self.path}: what pandas noted in it cannot be read ({error})") from error

    def vector(self, name: str) -> np.ndarray:
        """Return a column of whole numbers or texts, (N,).

        Raises:
            UserError: if a value is missing.
        """
        with _told_of(self.path):
            column = self.file.read(columns=[name]).column(name)
        if column.null_count:
            raise UserError(f"{self.path}, row {column.is_null().to_numpy().argmax()}: {name} is missing")
        values = column.to_numpy()
        return np.array(values.tolist()) if values.dtype.hasobject else values

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """Return columns of numbers side by side, (N, features), in the type that holds them all.

        Raises:
            UserError: if a column holds something else, or a value is missing, or they are too many for the memory.
        """
        first = next(self._batches(1, names), None)
        if first is None:
            raise UserError(f"{self.path}: cannot be read as Parquet (it has fewer rows than it says)")
        parts = list(self._batch(first, names, 0))
        dtype, width = np.result_type(*(part.dtype for part in parts)), sum(part.shape[1] for part in parts)
        if len(self) * width * dtype.itemsize > total_memory() / 2:
            raise UserError(
                f"{self.path}: its {len(self)} rows of {width} {dtype} would take more than half of the memory: write "
                "them as .npy, which is mapped (or as narrower numbers)"
            )
        found, start = np.empty((len(self), width), dtype), 0
        for batch in self._batches(ROWS, names):
            parts = list(self._batch(batch, names, start))
            if sum(part.shape[1] for part in parts) != width:
                raise UserError(f"{self.path}, from row {start} on: embeddings do not all have {width} numbers")
            np.concatenate(parts, axis=1, out=found[start : start + len(batch)])
            start += len(batch)
        return found

    def _batches(self, rows: int, names: Sequence[str]) -> Iterator[Any]:
        with _told_of(self.path):
            yield from self.file.iter_batches(rows, columns=list(names))

    def _batch(self, batch: Any, names: Sequence[str], start: int) -> Any:
        """Give the numbers of each column of a batch, (n, numbers)."""
        for name in names:
            column = batch.column(batch.schema.get_field_index(name))
            values = column.flatten() if hasattr(column, "flatten") and hasattr(column.type, "value_type") else column
            where = f"{self.path}, from row {start} on: {name}"
            if column.null_count or values.null_count:
                raise UserError(f"{where} has missing values")
            numbers = values.to_numpy(zero_copy_only=False)
            if numbers.dtype.kind == "b":
                numbers = numbers.view(np.uint8)
            if numbers.dtype.kind not in "fiu":
                raise UserError(
                    f"{where} is no column of numbers ({column.type}): name those that are by --feature-column"
                )
            if len(numbers) % len(column) or (values is not column and not _are_equally_long(column)):
                raise UserError(f"{where} has embeddings of several lengths")
            yield numbers.reshape(len(column), -1)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Tell what pyarrow says of a damaged file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})") from error


def _are_equally_long(column: Any) -> bool:
    return not hasattr(column, "value_lengths") or len(column.value_lengths().unique()) <= 1
