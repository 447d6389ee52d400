"""How exactly a GPU multiplies single-precision matrices: in full, or rounded to TF32 (10 bits after the point)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Products = Literal["ieee", "tf32"]

_MATMUL: Any = torch.backends.cuda.matmul
_CUDNN: Any = torch.backends.cudnn


def set_products(kind: Products) -> None:
    """Set how matrices, convolutions and recurrent layers are multiplied from now on, in this process."""
    # by torch's older names: under the newer ones, `torch.backends.cudnn.flags` raises
    _MATMUL.allow_tf32 = kind == "tf32"
    _CUDNN.allow_tf32 = kind == "tf32"


@contextmanager
def products(kind: Products) -> Iterator[None]:
    """Multiply in one way inside the block; what was set before is set again behind it, whatever the block sets."""
    set_back = _what_sets_back()
    set_products(kind)
    try:
        yield
    finally:
        set_back()


def _what_sets_back() -> Callable[[], None]:
    if not hasattr(_MATMUL, "fp32_precision"):
        # before torch 2.9
        matrices, others = torch.get_float32_matmul_precision(), _CUDNN.allow_tf32

        def set_back() -> None:
            torch.set_float32_matmul_precision(matrices)
            _CUDNN.allow_tf32 = others

        return set_back

    places = _MATMUL, _CUDNN.conv, _CUDNN.rnn
    before = [place.fp32_precision for place in places]

    def set_each_back() -> None:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision

    return set_each_back
