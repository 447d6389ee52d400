import numpy as np
import pytest

from reweight_core.data.seeds import Stream, cycled_order, derived_seed, epoch_order, random_state


class TestEpochOrder:
    @pytest.mark.parametrize("size", [1, 2, 17, 100])
    def test_every_example_comes_once(self, size):
        assert sorted(epoch_order(4, 2, size)) == list(range(size))

    def test_no_examples_have_an_empty_order(self):
        assert epoch_order(4, 2, 0).shape == (0,)

    def test_it_is_the_same_on_every_machine_and_version(self):
        assert epoch_order(0, 0, 8).tolist() == [2, 7, 5, 0, 1, 3, 4, 6]
        assert epoch_order(0, 1, 8).tolist() == [5, 2, 0, 4, 7, 1, 6, 3]
        assert epoch_order(1, 0, 8).tolist() == [4, 7, 0, 1, 5, 3, 2, 6]

    def test_no_two_epochs_or_seeds_share_an_order(self):
        orders = {tuple(epoch_order(seed, epoch, 30)) for seed in range(12) for epoch in range(12)}

        assert len(orders) == 144

    def test_every_example_is_equally_often_in_every_place(self):
        counts = np.zeros((5, 5))
        for epoch in range(2000):
            counts[np.arange(5), epoch_order(7, epoch, 5)] += 1

        assert abs(counts - 400).max() < 4.5 * (2000 * 0.2 * 0.8) ** 0.5

    def test_numpys_global_state_is_neither_used_nor_of_influence(self):
        np.random.seed(1)
        state = np.random.get_state()[1].copy()
        first = epoch_order(3, 3, 20)
        assert np.array_equal(np.random.get_state()[1], state)
        np.random.seed(2)

        assert np.array_equal(epoch_order(3, 3, 20), first)


class TestCycledOrder:
    @pytest.mark.parametrize(("size", "length"), [(7, 7), (7, 20), (7, 3), (5, 30), (1, 4)])
    def test_counts_of_the_elements_differ_by_one_at_most(self, size, length):
        counts = np.bincount(cycled_order(5, 1, size, length), minlength=size)

        assert counts.shape == (size,)
        assert counts.sum() == length
        assert counts.max() - counts.min() <= (length % size > 0)

    def test_each_round_is_a_permutation_of_its_own(self):
        rounds = cycled_order(5, 1, 30, 120).reshape(4, 30)

        assert all(sorted(r) == list(range(30)) for r in rounds)
        assert len({tuple(r) for r in rounds}) == 4

    def test_a_longer_order_begins_with_the_shorter(self):
        assert np.array_equal(cycled_order(5, 1, 9, 40)[:13], cycled_order(5, 1, 9, 13))

    def test_it_is_the_same_on_every_machine_and_version(self):
        assert cycled_order(0, 0, 5, 12).tolist() == [3, 2, 1, 4, 0, 1, 3, 0, 2, 4, 3, 2]

    def test_no_two_epochs_or_seeds_share_an_order(self):
        orders = {tuple(cycled_order(seed, epoch, 30, 30)) for seed in range(12) for epoch in range(12)}

        assert len(orders) == 144

    def test_meta_batches_and_training_on_the_meta_set_have_orders_of_their_own(self):
        assert not np.array_equal(cycled_order(0, 0, 30, 30), cycled_order(0, 0, 30, 30, Stream.META_TRAINING_ORDER))

    def test_it_does_not_repeat_the_order_of_the_epoch(self):
        assert not any(
            np.array_equal(cycled_order(s, e, 30, 30), epoch_order(s, e, 30)) for s in range(5) for e in range(5)
        )

    def test_training_on_the_meta_set_is_the_same_on_every_machine_and_version(self):
        found = cycled_order(0, 0, 5, 12, Stream.META_TRAINING_ORDER)

        assert found.tolist() == [1, 0, 4, 3, 2, 1, 4, 2, 0, 3, 2, 1]


class TestStreams:
    def test_no_two_purposes_share_draws(self):
        draws = {tuple(random_state(3, stream, 1).randint(2**31, size=4)) for stream in Stream}

        assert len(draws) == len(Stream) == 11

    def test_a_stream_is_that_of_seed_number_and_parts(self):
        expected = np.random.RandomState([9, 7, 2]).randint(2**31, size=4)

        assert np.array_equal(random_state(9, Stream.TRAIN_CROPS, 2).randint(2**31, size=4), expected)

    def test_numbers_never_change(self):
        assert {stream.name: stream.value for stream in Stream} == {
            "NOISE": 1,
            "EPOCH_ORDER": 2,
            "META_ORDER": 3,
            "META_TRAINING_ORDER": 4,
            "GENERATORS": 5,
            "TRAIN_CROPS": 7,
            "META_CROPS": 8,
            "CHOSEN_ORDER": 9,
            "FOLDS": 10,
            "META_HALVES": 11,
            "PLANTED": 12,
        }

    def test_a_generators_seed_follows_from_the_seed_and_the_purpose(self):
        assert derived_seed(0, "augmentation") == 221439764
        assert len({derived_seed(seed, purpose) for seed in range(3) for purpose in ("a", "b", "ab")}) == 9
