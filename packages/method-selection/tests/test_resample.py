import numpy as np
import torch
import torch.nn.functional as F

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


class Ordering:
    def __init__(self, order):
        self.order = order

    def order_epoch(self, stage, epoch, size, rng):
        return self.order
