import numpy as np
import pytest
import torch

from reweight_method_selection.co_teaching import number_kept, remembered, small_losses


class TestSchedule:
    # R(T) = 1 - tau min(T / T_k, 1)
    @pytest.mark.parametrize(("epoch", "share"), [(0, 1), (1, 0.96), (5, 0.8), (10, 0.6), (99, 0.6)])
    def test_the_share_that_is_remembered_falls_over_ten_epochs_and_stays(self, epoch, share):
        assert remembered(0.4, 10, epoch) == pytest.approx(share)

    def test_without_a_rise_it_is_there_at_once(self):
        assert remembered(0.4, 0, 0) == pytest.approx(0.6)

    def test_nothing_is_forgotten_at_a_rate_of_zero(self):
        assert [remembered(0.0, 10, epoch) for epoch in range(20)] == [1] * 20

    def test_the_number_kept_is_rounded_down_but_not_by_a_rounding_error(self):
        assert number_kept(128, 0.6) == 76
        assert number_kept(10, 1 - 0.9) == 1
        assert number_kept(100, 1 - 0.8) == 20
        assert number_kept(3, 0.2) == 1
        for n in range(1, 200):
            assert number_kept(n, 1.0) == n


class TestSmallLosses:
    def test_it_agrees_with_sorting_on_the_host(self):
        rng = np.random.RandomState(0)
        for _ in range(50):
            losses, k = rng.rand(20), rng.randint(1, 21)
            expected = np.zeros(20)
            expected[np.argsort(losses)[:k]] = 1
            assert small_losses(torch.from_numpy(losses), k).tolist() == expected.tolist()

    def test_of_equal_losses_the_first_are_chosen(self):
        assert small_losses(torch.tensor([1.0, 0.5, 1.0, 1.0]), 2).tolist() == [1, 1, 0, 0]

    def test_infinite_losses_are_not_chosen_before_finite_ones(self):
        assert small_losses(torch.tensor([torch.inf, 2.0, 1.0]), 2).tolist() == [0, 1, 1]
