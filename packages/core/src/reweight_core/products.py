"""How exactly a GPU multiplies single-precision matrices: in full, or rounded to TF32 (10 bits after the point)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Products = Literal["ieee", "tf32"]

_CONVOLUTIONS: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch's types do not know it


def set_products(kind: Products) -> None:
    """Set how matrices and convolutions are multiplied from now on, in this process."""
    torch.backends.cuda.matmul.fp32_precision = kind
    _CONVOLUTIONS.fp32_precision = kind


@contextmanager
def products(kind: Products) -> Iterator[None]:
    """Multiply in one way inside the block; what was set before is set again behind it, whatever the block sets."""
    before = torch.backends.cuda.matmul.fp32_precision, _CONVOLUTIONS.fp32_precision
    set_products(kind)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision, _CONVOLUTIONS.fp32_precision = before
