from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reweight_losses.mentor import Mentor, MovingPercentile, SelfPaced
from reweight_losses.options import MentorConfig, SelfPacedConfig

LOSSES = torch.tensor([0.1, 3.0, 0.2, 0.7, 1.4, 0.5, 0.9, 2.0], dtype=torch.float64)


def context(epochs=100):
    return SimpleNamespace(device=torch.device("cpu"), dtype=torch.float64, epochs=epochs, seed=3)


def step(losses=LOSSES, epoch=50):
    def unchanged(rows):
        return rows

    return SimpleNamespace(losses=losses, epoch=epoch, n=len(losses), whole=unchanged, part=unchanged)


class TestMovingPercentile:
    @pytest.mark.parametrize("percentile", [10.0, 62.5, 75.0, 100.0])
    def test_it_begins_with_the_first_batch_and_then_follows_by_halves(self, percentile):
        moving = MovingPercentile(percentile, context())
        moving.distance(step())
        first = np.percentile(LOSSES.numpy(), percentile)
        assert moving.m.item() == pytest.approx(first)

        later = moving.distance(step(LOSSES * 3))
        expected = 0.5 * first + 0.5 * 3 * first
        torch.testing.assert_close(later, 3 * LOSSES - expected)


class TestSelfPaced:
    def test_after_the_burn_in_it_trains_on_what_is_up_to_the_percentile(self):
        method = SelfPaced(SelfPacedConfig(percentile=62.5, burn_in=0.2), context())
        assert method.generate_weights(step(epoch=19)).eq(1).all()

        weights = method.generate_weights(step(epoch=20))
        assert torch.equal(weights, (np.percentile(LOSSES.numpy(), 62.5) >= LOSSES).double())
        assert weights.sum() == 5

    def test_equal_losses_are_all_kept(self):
        method = SelfPaced(SelfPacedConfig(burn_in=0.0), context())
        for _ in range(5):
            assert method.generate_weights(step(torch.full((6,), 0.3, dtype=torch.float64))).eq(1).all()


class TestMentor:
    def method(self, **options):
        return Mentor(MentorConfig(**{"early_dropout": 0.0, "dropout": 0.0, **options}), context())

    def test_the_three_phases_of_the_curriculum(self):
        method = self.method(percentile=50.0)
        assert method.generate_weights(step(epoch=17)).eq(1).all()
        m = np.median(LOSSES.numpy())

        assert torch.equal(method.generate_weights(step(epoch=18)), (m >= LOSSES).double())
        assert torch.equal(method.generate_weights(step(epoch=89)), (m >= LOSSES).double())
        torch.testing.assert_close(method.generate_weights(step(epoch=90)), (1 - (LOSSES - m)).clamp(0, 1))

    def test_with_everything_off_it_is_plain(self):
        method = self.method(percentile=100.0)
        for epoch in (0, 50, 99):
            assert method.generate_weights(step(epoch=epoch)).eq(1).all()

    def test_example_dropout_leaves_out_an_exact_random_share(self):
        method = self.method(percentile=100.0, early_dropout=0.5, dropout=0.05)
        losses = torch.full((50,), 0.3, dtype=torch.float64)
        early = [method.generate_weights(step(losses, epoch=16)) for _ in range(3)]
        late = [method.generate_weights(step(losses, epoch=17)) for _ in range(3)]

        assert [w.sum().item() for w in early] == [25] * 3
        assert [w.sum().item() for w in late] == [47] * 3
        assert not torch.equal(early[0], early[1])
        assert set(torch.cat(early + late).tolist()) == {0, 1}
