"""What a data plugin returns: clean images, labels and splits, as numpy arrays."""

from __future__ import annotations

import hashlib
import math
import reprlib
from typing import Any, get_args

import attrs
import numpy as np

from reweight_core.data.augmentations import Augmentation
from reweight_core.data.features import Features
from reweight_core.data.stored import Stored
from reweight_core.errors import UserError


@attrs.frozen(eq=False)
class Split:
    """Some labelled images.

    Attributes:
        images: uint8, shape (N, channels, height, width); or float32, for data that are no images:
            (N, features, 1, 1); or what stands for such an array: `ImageFiles`, `FeatureRows`, or another `Stored`.
        labels: int64 class indices, shape (N,).
        names: a name for each example (a file's path), or None.
    """

    images: np.ndarray | Stored
    labels: np.ndarray
    names: tuple[str, ...] | None = None

    def take(self, ids: np.ndarray) -> Split:
        """Return the examples at the given positions, in their order."""
        names = None if self.names is None else tuple(self.names[i] for i in ids)
        return Split(self.images[ids], self.labels[ids], names)

    def followed_by(self, other: Split) -> Split:
        """Return these examples with another set's behind them; they have names only if both sets have."""
        images: np.ndarray | Stored
        if isinstance(self.images, np.ndarray):
            assert isinstance(other.images, np.ndarray), "of one dataset"
            images = np.concatenate([self.images, other.images])
        else:
            images = self.images.followed_by(other.images)
        names = None if self.names is None or other.names is None else self.names + other.names
        return Split(images, np.concatenate([self.labels, other.labels]), names)

    def __len__(self) -> int:
        return len(self.labels)


def digest_of(split: Split) -> str:
    """Return a SHA-256 (hex) of the labels and images of a split; of the names of images that are in files."""
    digest = hashlib.sha256(split.labels.astype("<i8").tobytes())
    images = split.images
    for mark in (image.tobytes() for image in images) if isinstance(images, np.ndarray) else images.marks():
        digest.update(mark)
    return digest.hexdigest()


@attrs.frozen(eq=False)
class Dataset:
    """A dataset before any corruption; making one checks every field.

    Attributes:
        train: training examples.
        test: test examples, or None if there are none.
        classes: class names, by class index.
        mean: per channel, in pixel values or the units of a feature; both are normalised as (value - mean) / std.
        std: per channel, likewise.
        meta: clean examples that come with the dataset, or None.
        observed: labels of the training examples as people or machines gave them, int64 (N,), where these differ from
            the true ones: training sees them, and ``train.labels`` are the true labels. None where there are no others.
        trusted: whether the training labels are known to be true; if not, true labels count as
            unknown unless noise is added.
        augment: random augmentation of training and meta batches: crops out of the padded image, flips, both; or, for
            image files that are read while training, crops of random area and shape with flips.
        padding: pixels that the image is mirrored by on each side before a random crop.
        features: what the channels are, where they are columns of a table (for predictions of new rows), or None.
        representation: in words, what makes the inputs of the data's own examples, where that may change, with a digest
            of what it was fitted to: a network takes no inputs but these. None for data that are as they are.

    Raises:
        UserError: if a field is not what it should be, a class has no example in training or meta set, or there are no
            test examples at all.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    meta: Split | None = None
    observed: np.ndarray | None = None
    trusted: bool = True
    augment: Augmentation = "none"
    padding: int = 4
    features: Features | None = None
    representation: str | None = None

    def __attrs_post_init__(self) -> None:
        splits = {"train": self.train, "test": self.test, "meta": self.meta}
        for name, split in splits.items():
            if not isinstance(split, Split) and (split is not None or name == "train"):
                raise _wrong(name, "a Split" if name == "train" else "a Split or None", split)
        if not _is_tuple_of(str, self.classes):
            raise _wrong("classes", "a tuple of names", self.classes)
        if len(self.classes) < 2:
            raise UserError(f"the data have {len(self.classes)} class: a classifier needs at least two")
        for name, split in splits.items():
            if split is not None:
                self._check_split(name, split)
        self._check_channels()
        if self.observed is not None:
            self._check_labels("observed", self.observed, len(self.train))
        if not isinstance(self.trusted, bool):
            raise _wrong("trusted", "True or False", self.trusted)
        if self.augment not in get_args(Augmentation):
            raise _wrong("augment", f"one of {', '.join(get_args(Augmentation))}", self.augment)
        if not isinstance(self.padding, int) or self.padding < 0:
            raise _wrong("padding", "a number of pixels", self.padding)
        if not isinstance(self.representation, str | None):
            raise _wrong("representation", "a text or None", self.representation)

    def _check_split(self, name: str, split: Split) -> None:
        images, kind = (
            split.images,
            np.ndarray if isinstance(self.train.images, np.ndarray) else type(self.train.images),
        )
        if not isinstance(images, kind) or not isinstance(images, np.ndarray | Stored):
            raise _wrong(f"{name}.images", "a numpy array or what stands for one, the same in all splits", images)
        if images.dtype not in ((np.uint8, np.float32) if isinstance(images, np.ndarray) else _STORED):
            raise _wrong(f"{name}.images", "uint8 or float32, if stored of any number type", images)
        if images.ndim != 4:
            raise _wrong(f"{name}.images", "of shape (N, channels, height, width)", images)
        if images.shape[1:] != self.train.images.shape[1:]:
            raise _wrong(f"{name}.images", f"of shape (N, {', '.join(map(str, self.input_shape))}) as train's", images)
        self._check_labels(f"{name}.labels", split.labels, len(images))
        if split.names is not None and not _is_tuple_of(str, split.names, len(images)):
            raise _wrong(f"{name}.names", f"a tuple of {len(images)} names or None", split.names)
        empty = np.flatnonzero(np.bincount(split.labels, minlength=len(self.classes)) == 0)
        # a class that is not tested is trained all the same
        if len(empty) and (name != "test" or not len(split)):
            raise UserError(
                f"class '{self.classes[empty[0]]}' has no example in the {_SET_NAMES[name]}: "
                "every class needs at least one"
            )

    def _check_labels(self, field: str, labels: Any, count: int) -> None:
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (count,):
            raise _wrong(field, f"int64 of shape ({count},), one for each image", labels)
        outside = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(outside):
            raise UserError(f"the dataset's {field} has the label {outside[0]}, outside 0..{len(self.classes) - 1}")

    def _check_channels(self) -> None:
        channels = self.input_shape[0]
        for field, values, positive in (("mean", self.mean, False), ("std", self.std, True)):
            usable = _is_tuple_of((int, float), values, channels)
            if not usable or not all(math.isfinite(v) and (v > 0 or not positive) for v in values):
                kind = "positive" if positive else "finite"
                raise _wrong(field, f"a tuple of {channels} {kind} numbers, one for each channel", values)
        if self.features is None:
            return
        if not isinstance(self.features, Features) or len(self.features.names) != channels:
            raise _wrong("features", f"None or Features with {channels} names, one for each channel", self.features)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def has_features(self) -> bool:
        """Whether the examples are rows of features, not images."""
        return self.input_shape[1:] == (1, 1)


_STORED = tuple(map(np.dtype, ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")))
"""Number types of `Stored` examples, in the order of bytes of this machine."""

_SET_NAMES = {"train": "training set", "test": "test set", "meta": "meta set"}


def _is_tuple_of(kind: type | tuple[type, ...], value: Any, count: int | None = None) -> bool:
    if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
        return False
    return count is None or len(value) == count


def _wrong(field: str, wanted: str, found: Any) -> UserError:
    """Return the error for a field; arrays are described by type and shape."""
    if isinstance(found, np.ndarray | Stored):
        text = f"{type(found).__name__} of {found.dtype}, shape {tuple(found.shape)}"
    else:
        text = reprlib.repr(found)
    return UserError(f"the dataset's {field} must be {wanted}, not {text}: report it to the data plugin's author")
