"""Reading image files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import attrs
import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from reweight_core.errors import UserError

CROP_AREA = (0.08, 1.0)
"""Share of an image's area that a random crop covers."""

CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop."""


@attrs.frozen(eq=False)
class ImageFiles:
    """Image files that are read batch by batch: stands where a split has an array of uint8 (N, 3, size, size).

    Attributes:
        root: the folder that the names are relative to.
        names: paths of the files, object array (N,).
        size: side that the images are brought to, in pixels.
    """

    root: Path
    names: np.ndarray
    size: int
    dtype = np.dtype(np.uint8)
    ndim = 4
    slow = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that the images would make."""
        return len(self.names), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, ids: np.ndarray | slice) -> ImageFiles:
        return attrs.evolve(self, names=self.names[ids])

    def followed_by(self, other: ImageFiles) -> ImageFiles:
        """Return these files with another set's behind them, all brought to the size of these."""
        # an absolute name does not follow from the root
        further = [str(other.root.absolute() / name) for name in other.names]
        return attrs.evolve(self, names=np.concatenate([self.names, np.array(further, dtype=object)]))

    def read(self, ids: np.ndarray, seed: Sequence[int] | None = None) -> np.ndarray:
        """Read images, uint8 (n, 3, size, size).

        Args:
            ids: positions (n,).
            seed: for random crops and flips, which then follow from it and the position alone; None for the image
                as `decode` gives it.

        Raises:
            UserError: if one cannot be read.
        """
        images = np.empty((len(ids), 3, self.size, self.size), dtype=np.uint8)
        for image, i in zip(images, ids, strict=True):
            rng = None if seed is None else np.random.RandomState([*seed, int(i)])
            image[:] = decode(self.root / self.names[i], (self.size, self.size), rng)[0].transpose(2, 0, 1)
        return images

    def marks(self) -> Iterator[bytes]:
        """Give the names of the files."""
        yield "\0".join(self.names).encode()


def decode(
    path: str | Path | IO[bytes],
    size: tuple[int, int] | None,
    rng: np.random.RandomState | None = None,
    name: str | None = None,
) -> tuple[np.ndarray, bool]:
    """Read an image, upright, as uint8 (H, W, 3), and whether it is grey.

    Args:
        path: the file, by its path or open.
        size: height and width to bring it to: resized to cover them, then cut around the centre; None to leave it.
        rng: source of a random crop (`random_crop`), which is resized to `size`, and of a flip in half of the cases.
        name: how to call it in messages; None for its path.

    Raises:
        UserError: if it cannot be read, or is grey with more than 8 bits (colour with more is cut to 8).
    """
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            mode = image.mode
            rgb = image.convert("RGB")
    except Exception as error:  # for a broken file Pillow's decoders raise nearly anything
        raise UserError(f"{name or path}: cannot be read as an image ({error})") from error
    if mode.startswith(("I", "F")):
        raise UserError(f"{name or path}: has more than 8 bits per channel; convert it to 8 bits")
    if size is not None and rng is not None:
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR, random_crop(rgb.width, rgb.height, rng))
        if rng.random_sample() < 0.5:
            rgb = ImageOps.mirror(rgb)
    elif size is not None:
        rgb = ImageOps.fit(rgb, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(rgb), mode in ("1", "L", "LA")


def random_crop(width: int, height: int, rng: np.random.RandomState) -> tuple[int, int, int, int]:
    """Draw a crop of random area and shape out of an image: left, top, right, bottom in pixels.

    Area and shape as for ImageNet (Szegedy et al., CVPR 2015), drawn as torchvision's RandomResizedCrop does: the
    area uniformly in `CROP_AREA`, the shape log-uniformly in `CROP_RATIO`; where ten draws do not fit, the largest
    central crop of an allowed shape.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(width - w + 1), rng.randint(height - h + 1)
            return left, top, left + w, top + h
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def find_images(paths: Sequence[Path]) -> list[Path]:
    """List the images that are named, and those in the folders that are named, by name.

    Raises:
        UserError: if a path does not exist or is not UTF-8, or a folder holds no image.
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
    for path in found:
        refuse_other_bytes(path)
    return found


def refuse_other_bytes(path: Path) -> None:
    """Refuse a file or folder whose name is not UTF-8, which can be neither printed nor written to a table.

    Raises:
        UserError: if it is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{os.fsencode(path)!r}: the name is not UTF-8; rename it") from None
