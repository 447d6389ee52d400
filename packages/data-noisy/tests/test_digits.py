import hashlib

import numpy as np
from sklearn.datasets import load_digits

from reweight_core import NoOptions
from reweight_data_noisy.readers.digits import load

DATASET = load(NoOptions())


def as_rows(images, labels):
    return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))


def test_split_is_complete_and_disjoint():
    source = load_digits()
    parts = [DATASET.train, DATASET.test]
    got = as_rows(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))
    assert got == as_rows(source.images.astype(np.uint8), source.target)
    assert len(set(got)) == 1797  # no digit occurs twice, so each is in exactly one part


def test_split_takes_a_fifth_of_every_class():
    in_test, in_all = (
        np.bincount(labels)
        for labels in (DATASET.test.labels, np.concatenate([DATASET.train.labels, DATASET.test.labels]))
    )
    assert (np.abs(in_test - in_all / 5) <= 0.5).all()


def test_split_never_changes():
    digest = hashlib.sha256(DATASET.test.images.tobytes() + DATASET.test.labels.astype("<i8").tobytes())
    assert digest.hexdigest() == "aef57afdfc309c552dd16523ca6b4f6d50e7b41568ba260c1f44a4204ad3cfcf"


def test_values_are_normalised_to_between_zero_and_one():
    assert DATASET.input_shape == (1, 8, 8)
    assert (DATASET.train.images.min(), DATASET.train.images.max()) == (0, 16)
    assert (DATASET.mean, DATASET.std) == ((0.0,), (16.0,))
    assert DATASET.augment == "none"
