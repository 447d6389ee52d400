"""How exactly a GPU multiplies single-precision matrices: in full, or rounded to TF32 (10 bits after the point)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_MATMUL: Any = torch.backends.cuda.matmul
_CUDNN: Any = torch.backends.cudnn


def set_products(precision: str) -> None:
    """Round products to TF32 from now on, in this process, if that is the precision (``--precision``); else do not."""
    # by torch's older names: under the newer ones, `torch.backends.cudnn.flags` raises
    _MATMUL.allow_tf32 = precision == "tf32"
    _CUDNN.allow_tf32 = precision == "tf32"


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Multiply as `set_products` says inside the block; what was set before is set again behind it."""
    set_back = _what_sets_back()
    set_products(precision)
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
