import numpy as np
import torch
import torch.nn.functional as F

from reweight_core import Stage, hookimpl
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.testing.exact_run import META_SIZE, SIZE, make_context
from reweight_method_selection.plugin import resample
from reweight_method_selection.resample import draw_balanced

COUNTS = (40, 1, 8, 3)
LABELS = np.random.RandomState(5).permutation(np.repeat(np.arange(4), COUNTS))


class TestDraws:
    def test_every_class_and_every_example_of_a_class_is_equally_likely(self):
        count = 40_000
        drawn = draw_balanced(LABELS, count, np.random.RandomState(0))
        often = np.bincount(drawn, minlength=len(LABELS))
        expected = count / (4 * np.array(COUNTS)[LABELS])

        assert drawn.shape == (count,) and drawn.dtype == np.int64
        # five standard deviations of a binomial variable
        assert (np.abs(often - expected) < 5 * np.sqrt(expected)).all()

    def test_the_expected_gradient_is_that_of_inverse_frequency_weights(self):
        torch.manual_seed(0)
        inputs, labels = torch.randn(len(LABELS), 6).double(), torch.from_numpy(LABELS)
        weight = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)

        def gradient(losses):
            return torch.autograd.grad(losses.mean(), weight)[0]

        inverse = len(LABELS) / (4 * torch.tensor(COUNTS)[labels])
        expected = gradient(inverse * F.cross_entropy(inputs @ weight.T, labels, reduction="none"))
        drawn = torch.from_numpy(draw_balanced(LABELS, 200_000, np.random.RandomState(0)))
        found = gradient(F.cross_entropy(inputs[drawn] @ weight.T, labels[drawn], reduction="none"))

        torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
        assert (gradient(F.cross_entropy(inputs @ weight.T, labels, reduction="none")) - expected).abs().max() > 0.05

    def test_a_class_without_examples_is_not_drawn(self):
        drawn = draw_balanced(np.array([0, 3, 3]), 1000, np.random.RandomState(0))

        assert set(drawn) == {0, 1, 2}
        assert 400 < (drawn == 0).sum() < 600


class Choosing:
    @hookimpl
    def order_epoch(self, stage, epoch, size, rng):
        return np.array([7, 1, 3, 5, 12, 4])


TRAINING = Stage("train", 1, 0.1)


def order(method=None, stage=TRAINING, size=SIZE):
    hooks = MethodHooks(method or object(), "method", components={"resample": resample.build(None, make_context())})
    return hooks.order_epoch(stage, 0, size, np.random.RandomState(0))


class TestComponent:
    # the labels of the training set are its positions modulo 4
    def test_an_epoch_is_as_long_as_without_it_and_balanced(self):
        positions = order()

        assert len(positions) == SIZE
        assert len(set(positions)) < SIZE
        assert set(positions % 4) == {0, 1, 2, 3}

    def test_of_what_a_method_chooses_it_draws_as_many(self):
        positions = order(Choosing())

        assert len(positions) == 6
        assert set(positions) <= {7, 1, 3, 5, 12, 4}

    def test_it_draws_from_what_a_stage_goes_through(self):
        positions = order(stage=Stage("train", 1, 0.1, ids=np.array([2, 3, 6, 7, 8])))

        assert len(positions) == 5
        assert set(positions) <= {2, 3, 6, 7, 8}

    def test_of_a_stage_on_both_sets_it_draws_meta_examples_too(self):
        drawn = order(stage=Stage("both", 1, 0.1, source="both"), size=SIZE + META_SIZE)

        assert len(drawn) == SIZE + META_SIZE
        assert drawn.max() >= SIZE
