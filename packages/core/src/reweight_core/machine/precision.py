"""How exactly a GPU multiplies single-precision matrices: in full, or rounded to TF32 (10 bits after the point)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Products = Literal["ieee", "tf32"]

# torch's types do not know them
_CUDNN: Any = torch.backends.cudnn


def set_products(kind: Products) -> None:
    """Set how matrices, convolutions and recurrent layers are multiplied from now on, in this process."""
    # by torch's older names: under the newer ones, `torch.backends.cudnn.flags` raises
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    torch.backends.cudnn.allow_tf32 = kind == "tf32"


@contextmanager
def products(kind: Products) -> Iterator[None]:
    """Multiply in one way inside the block; what was set before is set again behind it, whatever the block sets."""
    places = torch.backends.cuda.matmul, _CUDNN.conv, _CUDNN.rnn
    before = [place.fp32_precision for place in places]
    set_products(kind)
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
