"""Small pictures of training examples."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from reweight_core import Split

SIDE = 96
"""The longer side of a thumbnail in pixels, at most."""

_DARK = 128
"""Arrays without a brighter pixel use a part of the range only, as digits with their 17 grey levels do."""

_LOSSLESS = 48
"""Images up to this side are so small that JPEG would spoil more than it saves."""


def thumbnails_of(split: Split) -> Callable[[Sequence[int]], Sequence[bytes]] | None:
    """Return a function that gives small JPEG or PNG files of a split's examples by position, None for features.

    Files are shown whole, as they are and not as training cuts them. The function raises `UserError` if one cannot be
    read.
    """
    from reweight_core import ImageFiles, decode, usable_cpus

    images = split.images
    if images.dtype != np.uint8 or images.shape[2:] == (1, 1):
        return None
    gain = _gain(images) if isinstance(images, np.ndarray) else 1.0

    def one(position: int) -> bytes:
        if isinstance(images, ImageFiles):
            return encoded(decode(images.root / images.names[position], None)[0])
        image = images[position] if isinstance(images, np.ndarray) else images.read(np.array([position]))[0]
        pixels = image.transpose(1, 2, 0)
        return encoded(pixels if gain == 1 else np.round(pixels * gain).astype(np.uint8))

    def thumbnails(positions: Sequence[int]) -> list[bytes]:
        # reading and decoding run outside Python's lock
        with ThreadPoolExecutor(usable_cpus()) as pool:
            return list(pool.map(one, positions))

    return thumbnails


def _gain(images: np.ndarray) -> float:
    brightest = int(images.max(initial=0))
    return 255 / brightest if 0 < brightest < _DARK else 1.0


def encoded(pixels: np.ndarray) -> bytes:
    """Return an image, uint8 (H, W, channels), as a JPEG or PNG file of at most `SIDE` pixels a side.

    Of more than three channels, or of two, only the first three or the first one can be shown.
    """
    channels = 3 if pixels.shape[2] >= 3 else 1
    image = Image.fromarray(pixels[:, :, :3] if channels == 3 else np.ascontiguousarray(pixels[:, :, 0]))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    file = io.BytesIO()
    if max(image.size) <= _LOSSLESS:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=85)
    return file.getvalue()
