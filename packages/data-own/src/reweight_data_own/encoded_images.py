"""Images of a Hugging Face dataset, which has them as files in its rows: decoded batch by batch, or all at once."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import numpy as np

from reweight_core import Stored, UserError, decode, total_memory, usable_cpus
from reweight_data_own.hub import Opened
from reweight_data_own.options import HfOptions

COLUMN = "image"


@attrs.frozen(eq=False)
class EncodedImages:
    """Images in the rows of a dataset that are decoded as they are read: an array uint8 (N, 3, height, width).

    Attributes:
        table: a `datasets.Dataset` with the column `COLUMN`, not decoded.
        positions: which rows these are, int64 (N,).
        size: height and width that images are brought to.
        name: of the dataset, for messages.
    """

    table: Any
    positions: np.ndarray
    size: tuple[int, int]
    name: str
    dtype = np.dtype(np.uint8)
    ndim = 4
    slow = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that the images would make."""
        return len(self.positions), 3, *self.size

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, ids: np.ndarray | slice) -> EncodedImages:
        return attrs.evolve(self, positions=self.positions[ids])

    def followed_by(self, other: EncodedImages) -> EncodedImages:
        """Return these images with another set's behind them."""
        from datasets import concatenate_datasets

        positions = np.concatenate([self.positions, len(self.table) + other.positions])
        return attrs.evolve(self, table=concatenate_datasets([self.table, other.table]), positions=positions)

    def read(self, ids: np.ndarray, seed: Sequence[int] | None = None) -> np.ndarray:
        """Decode images, uint8 (n, 3, height, width); with a seed, random crops and flips follow from it.

        Raises:
            UserError: if one cannot be read.
        """
        images = np.empty((len(ids), 3, *self.size), np.uint8)
        for image, i in zip(images, ids, strict=True):
            rng = None if seed is None else np.random.RandomState([*seed, int(i)])
            image[:] = self.decoded(int(i), self.size, rng)[0].transpose(2, 0, 1)
        return images

    def decoded(
        self, i: int, size: tuple[int, int] | None, rng: np.random.RandomState | None = None
    ) -> tuple[np.ndarray, bool]:
        """Decode one image (`reweight_core.decode`)."""
        row = int(self.positions[i])
        found = self.table[row][COLUMN]
        name = f"{self.name}, row {row}"
        if found is None:
            raise UserError(f"{name}: has no image")
        source = found["path"] if found["bytes"] is None else io.BytesIO(found["bytes"])
        return decode(source, size, rng, name)

    def marks(self) -> Iterator[bytes]:
        """Give the images as they are encoded."""
        for row in self.positions.tolist():
            found = self.table[row][COLUMN]
            yield found["bytes"] or found["path"].encode()


def open_images(opened: Opened, config: HfOptions) -> dict[str, np.ndarray | Stored]:
    """Return the images of each part: in memory, uint8 (N, 3, H, W), or (N, 1, H, W) if all are grey, or encoded.

    Raises:
        UserError: if one cannot be read, or they have several sizes and none is given.
    """
    from datasets import Image

    encoded = {}
    size = None if config.image_size is None else (config.image_size, config.image_size)
    for part, rows in opened.parts.items():
        table = rows.select_columns([opened.input]).cast_column(opened.input, Image(decode=False))
        table = table if opened.input == COLUMN else table.rename_column(opened.input, COLUMN)
        images = EncodedImages(table, np.arange(len(table)), size or (0, 0), opened.where(part))
        if size is None:
            height, width, _ = images.decoded(0, None)[0].shape
            size = height, width
        encoded[part] = attrs.evolve(images, size=size)
    needed = sum(int(np.prod(images.shape)) for images in encoded.values())
    if config.stream == "off" or (config.stream == "auto" and needed <= total_memory() / 2):
        return dict(_in_memory(encoded, config.image_size))
    if config.image_size is None:
        raise UserError("--stream: images that are read while training are brought to one size; give --image-size N")
    return dict(encoded)


def _in_memory(encoded: Mapping[str, EncodedImages], image_size: int | None) -> dict[str, np.ndarray]:
    arrays, are_grey = {}, []
    for part, images in encoded.items():
        array = np.empty(images.shape, np.uint8)

        def put(i: int, images: EncodedImages = images, array: np.ndarray = array) -> bool:
            pixels, is_grey = images.decoded(i, images.size if image_size else None)
            if pixels.shape[:2] != images.size:
                height, width = images.size
                raise UserError(
                    f"{images.name}, row {i}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, but others are "
                    f"{width} x {height}; give --image-size N to bring all images to N x N"
                )
            array[i] = pixels.transpose(2, 0, 1)
            return is_grey

        with ThreadPoolExecutor(usable_cpus()) as pool:
            are_grey.append(all(list(pool.map(put, range(len(images))))))
        arrays[part] = array
    return {part: np.ascontiguousarray(array[:, :1]) if all(are_grey) else array for part, array in arrays.items()}
