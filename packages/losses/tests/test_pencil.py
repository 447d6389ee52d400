from types import SimpleNamespace

import attrs
import pytest
import torch
import torch.nn.functional as F

from reweight_core import Batch, Stage, UserError
from reweight_losses.options import PencilConfig
from reweight_losses.pencil import BACKBONE, CORRECT, FINAL, Pencil, label_gradient

C, N = 4, 12
EXACT = {"rtol": 1e-10, "atol": 1e-12}
LABELS = torch.arange(N) % C


def context(epochs=320):
    return SimpleNamespace(
        num_classes=C,
        train_size=N,
        epochs=epochs,
        device=torch.device("cpu"),
        dtype=torch.float64,
        train=SimpleNamespace(labels=LABELS),
        by_example=lambda tensor: tensor,
    )


@pytest.fixture
def method():
    return Pencil(PencilConfig(label_lr=50.0), context())


@pytest.fixture
def logits():
    return torch.randn(6, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


BATCH = Batch(torch.arange(6) + 3, torch.zeros(6, 1), LABELS[3:9])


def step(stage, logits):
    return SimpleNamespace(
        stage=Stage(stage, 1, 0.1),
        ids=BATCH.ids,
        n=6,
        labels=BATCH.labels,
        probabilities=logits.softmax(1),
        one_hot=F.one_hot(BATCH.labels, C).double(),
    )


def rows_of(method, logits):
    logits = logits.clone().requires_grad_()
    (rows,) = torch.autograd.grad(method.losses(BATCH, logits).sum(), logits)
    return rows


class TestStages:
    def test_shares_and_rates_of_the_official_code(self, method):
        stages = method.plan_stages(Stage("train", 320, 0.2))

        assert [(s.name, s.epochs) for s in stages] == [(BACKBONE, 70), (CORRECT, 130), (FINAL, 120)]
        assert [s.lr for s in stages] == pytest.approx([0.06, 0.06, 0.2])
        assert [stages[0].schedule(t) for t in (0, 69.9)] == [1, 1]
        factors = [stages[2].schedule(t) for t in (0, 39.9, 40, 79.9, 80, 119.9)]
        assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])

    @pytest.mark.parametrize("epochs", [3, 4, 5, 10])
    def test_every_stage_of_a_short_run_has_an_epoch(self, epochs):
        stages = Pencil(PencilConfig(), context(epochs)).plan_stages(Stage("train", epochs, 0.1))

        assert all(stage.epochs > 0 for stage in stages)
        assert sum(stage.epochs for stage in stages) == epochs

    @pytest.mark.parametrize("epochs", [1, 2])
    def test_a_run_too_short_for_three_stages_has_fewer(self, epochs):
        stages = Pencil(PencilConfig(), context(epochs)).plan_stages(Stage("train", epochs, 0.1))

        assert [stage.name for stage in stages] == [BACKBONE, FINAL][:epochs]
        assert sum(stage.epochs for stage in stages) == epochs

    @pytest.mark.parametrize("given", [{"correct_from": 5, "correct_until": 4}, {"correct_until": 11}])
    def test_stages_that_end_before_they_begin_are_refused(self, given):
        with pytest.raises(UserError, match=r"--correct-from .* --correct-until .* must be in this order"):
            Pencil(PencilConfig(**given), context(10))


class TestLosses:
    def test_the_first_stage_is_cross_entropy(self, method, logits):
        method.follow_forward(step(BACKBONE, logits))

        assert torch.equal(method.losses(BATCH, logits), F.cross_entropy(logits, BATCH.labels, reduction="none"))

    def test_the_second_compares_with_the_distribution_and_sharpens(self, method, logits):
        method.follow_forward(step(CORRECT, logits))
        p, log_p = logits.softmax(1), logits.log_softmax(1)
        A = log_p - method.Y[BATCH.ids].log_softmax(1)
        KL = p * (A - (p * A).sum(1, keepdim=True)) / C
        entropy = -0.1 / C * p * (log_p - (p * log_p).sum(1, keepdim=True))

        torch.testing.assert_close(rows_of(method, logits), KL + entropy, **EXACT)

    @pytest.mark.parametrize(("stage", "scale"), [(BACKBONE, 1), (CORRECT, 1 / C), (FINAL, 1 / C)])
    def test_trusted_examples_have_cross_entropy_at_the_scale_of_the_others(self, method, logits, stage, scale):
        method.follow_forward(step(stage, logits))
        trusted = torch.arange(6) < 2
        found = method.losses(attrs.evolve(BATCH, trusted=trusted), logits)
        plain = F.cross_entropy(logits, BATCH.labels, reduction="none")
        torch.testing.assert_close(found[trusted], scale * plain[trusted], **EXACT)
        assert torch.equal(found[~trusted], method.losses(BATCH, logits)[~trusted])

    def test_the_third_has_no_gradient_where_the_distribution_is_predicted(self, method, logits):
        method.Y[BATCH.ids] = logits + 3
        method.follow_forward(step(FINAL, logits))

        assert rows_of(method, logits).abs().max() < 1e-15
        assert rows_of(method, -logits).abs().max() > 0.01


class TestLabelDistributions:
    def test_they_begin_at_the_observed_labels(self, method):
        assert torch.equal(method.Y, 10 * F.one_hot(LABELS, C).double())

    def test_the_gradient_is_that_of_both_terms(self, logits):
        y = F.one_hot(BATCH.labels, C).double()
        Y = torch.randn(6, C, generator=torch.Generator().manual_seed(8), dtype=torch.float64).requires_grad_()
        p = logits.softmax(1)
        divergence = (p * (p.log() - Y.log_softmax(1))).sum() / C
        # the label distribution taken for logits, as in the official code
        compatibility = F.cross_entropy(Y.softmax(1), BATCH.labels, reduction="sum")
        (expected,) = torch.autograd.grad(divergence + 0.4 * compatibility, Y)

        torch.testing.assert_close(label_gradient(Y.detach(), p, y, 0.4), expected, **EXACT)

    def test_in_the_second_stage_they_move_with_the_network(self, method, logits):
        before = method.Y.clone()
        seen = step(CORRECT, logits)
        method.follow_forward(seen)
        assert torch.equal(method.Y, before)
        method.follow_update({})

        moved = before[BATCH.ids] - 50 / 6 * label_gradient(before[BATCH.ids], seen.probabilities, seen.one_hot, 0.4)
        torch.testing.assert_close(method.Y[BATCH.ids], moved, **EXACT)
        others = torch.ones(N, dtype=torch.bool).index_fill(0, BATCH.ids, False)
        assert torch.equal(method.Y[others], before[others])

    @pytest.mark.parametrize("stage", [BACKBONE, FINAL])
    def test_in_the_others_they_stay(self, method, logits, stage):
        before = method.Y.clone()
        method.follow_forward(step(CORRECT, logits))
        method.follow_forward(step(stage, logits))
        method.follow_update({})

        assert torch.equal(method.Y, before)

    def test_what_is_left_to_the_label_is_recorded(self, method, logits):
        method.Y[BATCH.ids] = logits
        recorded = method.example_weights(step(FINAL, logits), torch.ones(6, dtype=torch.float64))

        torch.testing.assert_close(recorded, logits.softmax(1).gather(1, BATCH.labels[:, None]).squeeze(1), **EXACT)
