"""State of several owners in one dictionary of tensors: every name begins with its owner's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def prefixed(owner: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names ``OWNER.NAME``."""
    return {f"{owner}.{name}": tensor for name, tensor in tensors.items()}


def part_of(tensors: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Return one owner's tensors under their own names: the inverse of `prefixed`."""
    start = f"{owner}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
