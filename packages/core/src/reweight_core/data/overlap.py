"""Images of one set of a dataset that are in another one too."""

from __future__ import annotations

import warnings
import zlib

import numpy as np

from reweight_core.data.dataset import Dataset
from reweight_core.errors import UserError


def refuse_overlap(dataset: Dataset) -> None:
    """Refuse a meta set, and warn of a test set, that holds images of the training set.

    Rows of features may well be equal, and public datasets are as they are. Images that are read while training are
    not looked at here.
    """
    train = dataset.train.images
    if not isinstance(train, np.ndarray) or train.dtype != np.uint8 or dataset.trusted:
        return
    for what, split in (("meta", dataset.meta), ("test", dataset.test)):
        if split is None:
            continue
        assert isinstance(split.images, np.ndarray), "either all splits are stored elsewhere or none is"
        of_split = {zlib.crc32(image.tobytes()): i for i, image in enumerate(split.images)}
        for i, image in enumerate(train):
            j = of_split.get(zlib.crc32(image.tobytes()))
            if j is None or not np.array_equal(image, split.images[j]):
                continue
            names = [(s.names[k] if s.names else f"example {k}") for s, k in ((split, j), (dataset.train, i))]
            text = f"{names[0]} of the {what} set is the same image as {names[1]} of the training set"
            if what == "meta":
                raise UserError(f"{text}; the meta set must be apart from training")
            warnings.warn(f"{text}: the test accuracy will be too good", stacklevel=4)
            break
