"""The contract of a noise plugin, as tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest

from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.noise import Noise
from reweight_core.testing.record_suite import RecordSuite


class NoiseSuite(RecordSuite):
    """Subclass it as ``class TestMine(NoiseSuite)`` and name the kind of noise.

    Attributes:
        name: the KIND of ``--noise KIND:ARGUMENT``.
        argument: an argument with which about a third of the labels change, and some draws are made.
        wrong_arguments: arguments that it must refuse.
        num_classes: number of classes C that it is tested with.
    """

    kind = "noise"
    argument: ClassVar[str]
    wrong_arguments: ClassVar[Sequence[str]] = ()
    num_classes: ClassVar[int] = 10

    def noisy(self, seed: int = 0) -> np.ndarray:
        """Return the labels of `labels` after the noise; core checks their type, shape and range."""
        return self.corrupted(self.labels(), seed)

    def corrupted(self, labels: np.ndarray, seed: int = 0) -> np.ndarray:
        """Return labels after the noise, whose images are random."""
        record = registry.find(self.kind, self.name)
        noise = Noise(self.name, registry.build(self.kind, self.name, self.argument))
        further = []
        if record.needs_images:
            further.append(np.random.RandomState(1).randint(0, 256, (len(labels), 3, 8, 8)).astype(np.uint8))
        if record.needs_mask:
            further.append(np.ones(len(labels), dtype=bool))
        found: np.ndarray = noise(labels, self.num_classes, np.random.RandomState(seed), *further)
        return found

    def labels(self) -> np.ndarray:
        """Return the true labels, 100 of each class in turn."""
        return np.arange(100 * self.num_classes, dtype=np.int64) % self.num_classes

    def test_some_labels_change_and_others_stay(self) -> None:
        changed = np.mean(self.noisy() != self.labels())
        assert 0 < changed < 1

    def test_all_draws_come_from_the_generator_that_is_given(self) -> None:
        np.random.seed(0)
        first, drawn = self.noisy(), np.random.randint(2**31)
        np.random.seed(1)
        assert np.array_equal(first, self.noisy()), "the labels depend on more than the generator"
        np.random.seed(0)
        assert drawn == np.random.randint(2**31), "numpy's own generator is drawn from"
        assert not np.array_equal(first, self.noisy(seed=1)), "another seed must give other labels"

    def test_the_labels_that_it_is_given_stay_as_they_are(self) -> None:
        labels = self.labels()
        self.corrupted(labels)
        assert np.array_equal(labels, self.labels())

    def test_arguments_that_cannot_be_are_refused(self) -> None:
        for argument in self.wrong_arguments:
            with pytest.raises(UserError, match=r".+"):
                registry.build(self.kind, self.name, argument)
