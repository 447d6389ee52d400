"""What a data plugin returns: clean images, labels and splits, as numpy arrays."""

from __future__ import annotations

from typing import Literal

import attrs
import numpy as np

from reweight_core.errors import UserError
from reweight_core.data.features import Features
from reweight_core.data.images import ImageFiles


@attrs.frozen(eq=False)
class Split:
    """Some labelled images.

    Attributes:
        images: uint8, shape (N, channels, height, width); or image files that are read while training; or float32,
            for data that are no images: (N, features, 1, 1).
        labels: int64 class indices, shape (N,).
        names: a name for each example (a file's path), or None.
    """

    images: np.ndarray | ImageFiles
    labels: np.ndarray
    names: tuple[str, ...] | None = None

    def take(self, ids: np.ndarray) -> Split:
        """Return the examples at the given positions, in their order."""
        names = None if self.names is None else tuple(self.names[i] for i in ids)
        return Split(self.images[ids], self.labels[ids], names)

    def __len__(self) -> int:
        return len(self.labels)


@attrs.frozen(eq=False)
class Dataset:
    """A dataset before any corruption.

    Attributes:
        train: training examples.
        test: test examples, or None if there are none.
        classes: class names, by class index.
        mean: per channel, in pixel values; images are normalised as (pixel - mean) / std.
        std: per channel, in pixel values.
        meta: clean examples that come with the dataset, or None.
        observed: labels of the training examples as people or machines gave them, int64 (N,), where these differ from
            the true ones: training sees them, and ``train.labels`` are the true labels. None where there are no others.
        trusted: whether the training labels are known to be true; if not, true labels count as
            unknown unless noise is added.
        augment: random augmentation of training and meta batches: crops out of the padded image, flips, both; or, for
            image files that are read while training, crops of random area and shape with flips.
        padding: pixels added on each side before a random crop.
        padding_mode: ``reflect`` or ``zero``.
        features: what the channels are, where they are columns of a table (for predictions of new rows), or None.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    meta: Split | None = None
    observed: np.ndarray | None = None
    trusted: bool = True
    augment: Literal["none", "crop", "flip", "crop-flip", "resized-crop"] = "none"
    padding: int = 4
    padding_mode: Literal["reflect", "zero"] = "reflect"
    features: Features | None = None

    def __attrs_post_init__(self) -> None:
        if len(self.classes) < 2:
            raise UserError(f"the data have {len(self.classes)} class: a classifier needs at least two")
        if not len(self.mean) == len(self.std) == self.train.images.shape[1]:
            raise TypeError("mean and std need one value for each channel")
        if self.features is not None and len(self.features.names) != len(self.mean):
            raise TypeError("features need one name for each channel")
        splits = {"training set": self.train, "test set": self.test, "meta set": self.meta}
        for name, split in splits.items():
            if split is not None:
                self._check_split(name, split)

        if self.observed is not None:
            if self.observed.dtype != np.int64 or self.observed.shape != self.train.labels.shape:
                raise TypeError("observed labels must be int64, one for each training example")
            if not (self.observed.min() >= 0 and self.observed.max() < len(self.classes)):
                raise UserError(f"an observed label is outside 0..{len(self.classes) - 1}")

    def _check_split(self, name: str, split: Split) -> None:
        if isinstance(split.images, ImageFiles) != isinstance(self.train.images, ImageFiles):
            raise TypeError(f"images of the {name} must be image files exactly if those of the training set are")
        if split.images.dtype not in (np.uint8, np.float32) or split.images.ndim != 4:
            raise TypeError(f"images of the {name} must be uint8 or float32 (N, channels, height, width)")
        if split.labels.dtype != np.int64 or split.labels.shape != split.images.shape[:1]:
            raise TypeError(f"labels of the {name} must be int64, one for each image")
        if split.images.shape[1:] != self.train.images.shape[1:]:
            raise TypeError(f"images of the {name} differ in shape from those of the training set")
        if len(split) and not (split.labels.min() >= 0 and split.labels.max() < len(self.classes)):
            raise UserError(f"the {name} has a label outside 0..{len(self.classes) - 1}")
        empty = np.flatnonzero(np.bincount(split.labels, minlength=len(self.classes)) == 0)
        if len(empty):
            raise UserError(
                f"class '{self.classes[empty[0]]}' has no example in the {name}: every class needs at least one"
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width
