"""An array in a file that is mapped into memory, not read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np


@attrs.frozen(eq=False, slots=False)
class MappedArray:
    """An array of rows in a file, mapped into memory when it is first used.

    Attributes:
        path: the file.
        dtype: type of its numbers.
        shape: rows N and columns.
        offset: bytes before the first number; rows follow one another.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    offset: int

    @cached_property
    def array(self) -> np.ndarray:
        """The mapped numbers, to be read only."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape).view(np.ndarray)

    def __getstate__(self) -> dict[str, Any]:
        # another process maps the file itself: the numbers do not go to it
        return {field.name: getattr(self, field.name) for field in attrs.fields(MappedArray)}
