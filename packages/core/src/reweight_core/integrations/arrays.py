"""Arrays of a Python program as a dataset: rows of features, or images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs
import numpy as np

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.features import Features
from reweight_core.errors import UserError


@attrs.frozen
class ArrayReader:
    """Turns arrays into what a network takes: like the training set's that it was made of.

    Attributes:
        shape: of an example as it is given: (features,), (height, width) or (height, width, channels).
        features: the columns and how they are standardised, or None for images.
        mean: of each channel of images, in pixel values; 0 for features.
        std: likewise; 1 for features.
    """

    shape: tuple[int, ...]
    features: Features | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray, names: Sequence[str]) -> ArrayReader:
        """Return that of a training set: float64 (N, features), or uint8 (N, height, width[, channels]).

        Args:
            values: the training set.
            names: of the features.

        Raises:
            UserError: if it is neither.
        """
        if values.ndim == 2:
            count = values.shape[1]
            return cls(values.shape[1:], Features.of(names, values), (0.0,) * count, (1.0,) * count)
        if values.ndim not in (3, 4) or values.dtype != np.uint8:
            raise UserError(
                f"X is of {values.dtype} and shape {values.shape}: it must be features (n, features), or images of "
                "uint8 (n, height, width) or (n, height, width, channels)"
            )
        mean, std = _statistics(_channels_first(values))
        return cls(values.shape[1:], None, mean, std)

    @property
    def kind(self) -> Literal["features", "images"]:
        """What the examples are."""
        return "images" if self.features is None else "features"

    def read(self, values: np.ndarray, what: str) -> np.ndarray:
        """Return examples as a `Split` has them: float32 (N, features, 1, 1), or uint8 (N, channels, height, width).

        Args:
            values: the examples, as the training set was given.
            what: how to call them in messages.

        Raises:
            UserError: if they are not like the training set, or too large.
        """
        if self.features is not None and values.ndim == 2:
            return self.features.standardise(values, Path(what))
        if values.shape[1:] != self.shape or values.dtype != np.uint8:
            raise UserError(
                f"{what} is of {values.dtype} and shape {values.shape}, but the training set of {self.kind} had shape "
                f"(n, {', '.join(map(str, self.shape))})"
            )
        return _channels_first(values)

    def dataset(self, train: Split, meta: Split | None, classes: Sequence[str]) -> Dataset:
        """Return the dataset of these examples; images are augmented as those of ``--data folder``.

        Raises:
            UserError: if there is one class only, or a class without a clean example.
        """
        return Dataset(
            train=train,
            test=None,
            meta=meta,
            classes=tuple(classes),
            mean=self.mean,
            std=self.std,
            trusted=False,
            augment="none" if self.features is not None else "crop-flip",
            padding=max(1, min(train.images.shape[2:]) // 8),
            features=self.features,
        )


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, 1 if it is constant."""
    pixels, means, stds = np.arange(256), [], []
    for channel in range(images.shape[1]):
        # of counts, because a copy of all pixels in double precision is eight times as large
        shares = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        means.append(float(shares @ pixels))
        stds.append(float(np.sqrt(shares @ (pixels - means[-1]) ** 2)) or 1.0)
    return tuple(means), tuple(stds)
