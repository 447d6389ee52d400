"""The contract of a data plugin, as tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from reweight_core.config.load_data import load_data, load_dataset
from reweight_core.config.resolve import configure
from reweight_core.config.run_config import DataConfig
from reweight_core.data.dataset import Dataset, Split
from reweight_core.testing.record_suite import RecordSuite


def pixels(split: Split, i: int) -> np.ndarray:
    """Return an image of a split, or the features of an example, (channels, height, width)."""
    images = split.images
    image: np.ndarray = images[i] if isinstance(images, np.ndarray) else images.read(np.array([i]))[0]
    return image


class DataSuite(RecordSuite):
    """Subclass it as ``class TestMine(DataSuite)`` and name the dataset.

    Attributes:
        name: the dataset's name on the command line.
        options: options to test it with, by name; override the `given` fixture where they need files.
        meta_size: a meta set that the training set can spare, at least one example a class.
    """

    kind = "data"
    options: ClassVar[Mapping[str, Any]] = {}
    meta_size: ClassVar[int] = 20

    @pytest.fixture
    def given(self) -> dict[str, Any]:
        """Options by name."""
        return dict(self.options)

    @pytest.fixture
    def dataset(self, given: dict[str, Any]) -> Dataset:
        """The dataset as the plugin builds it."""
        config = configure(DataConfig, data=self.name, **given)
        return load_dataset(config)

    def test_normalisation_fits_the_channels(self, dataset: Dataset) -> None:
        channels = dataset.input_shape[0]
        assert len(dataset.mean) == len(dataset.std) == channels
        assert all(value > 0 for value in dataset.std)

    def test_building_twice_gives_the_same_data(self, dataset: Dataset, given: dict[str, Any]) -> None:
        config = configure(DataConfig, data=self.name, **given)
        again = load_dataset(config)
        for one, other in ((dataset.train, again.train), (dataset.test, again.test)):
            if one is None or other is None:
                assert one is other
                continue
            assert type(one.images) is type(other.images) and one.images.shape == other.images.shape
            for i in range(0, len(one), 1 + len(one) // 100):
                assert np.array_equal(pixels(one, i), pixels(other, i))
            assert np.array_equal(one.labels, other.labels)
            assert one.names == other.names

    def test_meta_set_noise_and_long_tail_apply(self, dataset: Dataset, given: dict[str, Any]) -> None:
        given |= {"meta_size": self.meta_size, "imb": 0.5}
        data = load_data(configure(DataConfig, data=self.name, **given))
        assert data.meta is not None and len(data.meta) == self.meta_size
        counts = np.bincount(dataset.train.labels[data.ids], minlength=len(dataset.classes))
        assert counts[-1] == int(counts[0] * 0.5)

    def test_training_sees_observed_labels_and_is_judged_by_true_ones(
        self, dataset: Dataset, given: dict[str, Any]
    ) -> None:
        given |= {"meta_size": self.meta_size, "imb": 0.5}
        data = load_data(configure(DataConfig, data=self.name, **given))
        true = dataset.train.labels[data.ids]
        assert np.array_equal(data.train.labels, true if dataset.observed is None else dataset.observed[data.ids])
        if dataset.trusted:
            assert np.array_equal(data.true_labels, true)
            assert data.noise_rate == np.mean(data.train.labels != true)
        else:
            assert data.noise_rate is None
