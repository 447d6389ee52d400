"""Reading a CSV file whose first line names its columns."""

from __future__ import annotations

import csv
from pathlib import Path

import attrs

from reweight_core.errors import UserError


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
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
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
