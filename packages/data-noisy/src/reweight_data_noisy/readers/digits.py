"""Scikit-learn's handwritten digits, split into training and test set once and for all."""

import numpy as np
from sklearn.datasets import load_digits

from reweight_core import Dataset, NoOptions, Split

TEST_SHARE = 0.2


def load(config: NoOptions) -> Dataset:
    """Return the 1797 digits, uint8 (N, 1, 8, 8) in 0..16; a fixed 20 % of each class is for testing."""
    source = load_digits()
    everything = Split(source.images.astype(np.uint8)[:, None], source.target.astype(np.int64))
    # the stream of numpy's RandomState never changes, so the split is the same on every machine
    rng = np.random.RandomState(0)
    is_test = np.zeros(len(everything), dtype=bool)
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(everything.labels == digit))
        is_test[members[: round(TEST_SHARE * len(members))]] = True
    return Dataset(
        train=everything.take(np.flatnonzero(~is_test)),
        test=everything.take(np.flatnonzero(is_test)),
        classes=tuple("0123456789"),
        mean=(0.0,),
        std=(16.0,),
    )
