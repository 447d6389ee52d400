from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reweight_core.testing.exact_run import CLASSES, ExactRun, make_context, make_examples, make_splits
from reweight_method_selection.hard_mining import HardMining, hard_examples
from reweight_method_selection.plugin import hard_mining


def literal(losses, minority):
    """The examples kept, one batch after the other in plain Python."""
    small = [i for i, is_small in enumerate(minority) if is_small]
    large = sorted((i for i, is_small in enumerate(minority) if not is_small), key=lambda i: (-losses[i], i))
    return sorted(small + large[: max(len(small), 1)])


def kept(losses, minority):
    found = hard_examples(torch.tensor(losses), torch.tensor(minority))
    assert found.dtype == torch.bool
    return found.nonzero().squeeze(1).tolist()


def context_with(labels):
    train = make_examples(make_splits()[0])
    train.labels.copy_(torch.tensor(labels))
    return make_context(train=train)


class TestWhoIsKept:
    def test_it_agrees_with_a_literal_choice(self):
        rng = np.random.RandomState(0)
        for _ in range(50):
            losses, minority = rng.rand(12).tolist(), (rng.rand(12) < 0.3).tolist()
            assert kept(losses, minority) == literal(losses, minority)

    def test_all_of_the_minority_and_as_many_of_the_others(self):
        assert kept([0.1, 5.0, 3.0, 4.0, 0.0, 9.0], [True, False, False, False, True, False]) == [0, 1, 4, 5]

    def test_one_of_the_others_where_there_is_no_minority(self):
        assert kept([1.0, 3.0, 2.0], [False] * 3) == [1]

    def test_a_batch_of_the_minority_alone_and_one_with_few_others(self):
        assert kept([1.0, 2.0], [True, True]) == [0, 1]
        assert kept([1.0, 2.0, 3.0], [True, False, True]) == [0, 1, 2]

    def test_the_minority_takes_no_place_where_all_losses_are_zero(self):
        assert kept([0.0] * 5, [True, False, True, False, False]) == [0, 1, 2, 3]


class TestWeights:
    # 3 of class 0, 20 of class 1, 4 of class 2, 3 of class 3
    LABELS = (0,) * 3 + (1,) * 20 + (2,) * 4 + (3,) * 3

    def test_those_kept_count_the_same_and_their_weights_sum_to_the_size_of_the_batch(self):
        run = ExactRun(hard_mining.build(None, context_with(self.LABELS)))
        run.train.labels.copy_(torch.tensor(self.LABELS))
        weights = run.take(range(0, 30, 2), 0.25)
        labels = torch.tensor(self.LABELS)[range(0, 30, 2)]
        small = (labels != 1).sum().item()

        assert (weights > 0).sum().item() == 2 * small
        assert (weights[labels != 1] > 0).all()
        torch.testing.assert_close(weights[weights > 0], torch.full((2 * small,), 15 / (2 * small)).double())

    def test_classes_with_less_than_an_equal_share_are_the_minority(self):
        method = HardMining(None, context_with(self.LABELS))

        assert method.minority.tolist() == [True, False, True, True]

    def test_with_equal_classes_it_warns_and_keeps_every_example(self):
        labels = torch.arange(20) % CLASSES
        context = SimpleNamespace(train=SimpleNamespace(labels=labels), num_classes=CLASSES, train_size=20)
        with pytest.warns(UserWarning, match="all have as many examples"):
            method = HardMining(None, context)

        assert ExactRun(method).take(range(10), 0.25).eq(1).all()
