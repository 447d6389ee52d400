"""Reading image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from reweight_core.errors import UserError


def decode(path: str | Path, size: tuple[int, int] | None) -> tuple[np.ndarray, bool]:
    """Read an image, upright, as uint8 (H, W, 3), and whether it is grey.

    Args:
        path: the file.
        size: height and width to bring it to: resized to cover them, then cut around the centre; None to leave it.

    Raises:
        UserError: if it cannot be read, or is grey with more than 8 bits (colour with more is cut to 8).
    """
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            mode = image.mode
            rgb = image.convert("RGB")
    except Exception as error:  # for a broken file Pillow's decoders raise nearly anything
        raise UserError(f"{path}: cannot be read as an image ({error})") from error
    if mode.startswith(("I", "F")):
        raise UserError(f"{path}: has more than 8 bits per channel; convert it to 8 bits")
    if size is not None:
        rgb = ImageOps.fit(rgb, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(rgb), mode in ("1", "L", "LA")


def find_images(paths: Sequence[Path]) -> list[Path]:
    """List the images that are named, and those in the folders that are named, by name.

    Raises:
        UserError: if a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS and p.is_file())
            if not inside:
                raise UserError(f"{path}: holds no image ({', '.join(IMG_EXTENSIONS)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return found
