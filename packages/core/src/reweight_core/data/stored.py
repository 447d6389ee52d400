"""What stands where a split has an array: examples that are read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Stored(Protocol):
    """Examples in files or in memory as they were stored, as an array (N, channels, height, width) would have them.

    It may go to other processes, so it must be pickled as where its examples are, not as what they hold.
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of what is read."""

    @property
    def ndim(self) -> int:
        """The number of dimensions, 4."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that the examples would make."""

    @property
    def slow(self) -> bool:
        """Whether reading takes so long that other processes should do it ahead of the steps."""

    def __len__(self) -> int: ...

    def __getitem__(self, ids: Any) -> Stored:
        """Return the examples at some positions, or of a slice, without reading them."""

    def followed_by(self, other: Any) -> Stored:
        """Return these examples with those of another set of the same kind behind them."""

    def read(self, ids: np.ndarray, seed: Sequence[int] | None = None) -> np.ndarray:
        """Read the examples at positions `ids` (n,), shape (n, channels, height, width).

        Args:
            ids: positions.
            seed: for random crops and flips of images, which then follow from it and the position alone, or None.

        Raises:
            UserError: if one cannot be read.
        """

    def marks(self) -> Iterator[bytes]:
        """Give what tells these examples from any others, for a digest."""
