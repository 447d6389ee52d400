"""``--observe csv``: the figures of every epoch as a table, metrics.csv in the folder of the run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reweight_core import UserError, hookimpl, write_text

FILE = "metrics.csv"


class MetricsCSV:
    """Writes a row an epoch: metrics.jsonl as a table. What is null there is empty here.

    A figure that comes later, of a second stage for example, adds a column; rows before it are empty there.
    """

    def __init__(self, config: object):
        self._columns: list[str] = []
        self._rows: list[Mapping[str, Any]] = []

    @hookimpl
    def begin_run(self, folder: Path, epochs_done: int) -> None:
        """Begin the table, or go on with the epochs that a resumed run has behind it."""
        self._path = folder / FILE
        self._columns, self._rows = [], []
        if epochs_done:
            text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
            self._rows = [json.loads(line) for line in text.splitlines()]
        self._columns = list(dict.fromkeys(name for row in self._rows for name in row))
        self._write_all()

    @hookimpl
    def observe_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Add the row of an epoch."""
        row = dict(metrics)
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._write_all()
            return
        with _told_of(self._path), open(self._path, "a", encoding="utf-8", newline="") as file:
            file.write(_text([self._cells(row)]))

    def _write_all(self) -> None:
        head = [self._columns] if self._columns else []
        with _told_of(self._path):
            write_text(self._path, _text([*head, *map(self._cells, self._rows)]))

    def _cells(self, row: Mapping[str, Any]) -> list[Any]:
        values = (row.get(name) for name in self._columns)
        return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--observe csv: {path}: {error.strerror}") from error


def _text(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
