"""Rows, n D', of each loss against closed forms written down anew, and what must reduce to cross-entropy."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reweight_core import Batch
from reweight_losses import bootstrap, class_balanced, elr, focal, gce, ldam, logit_adjusted, sce
from reweight_losses.class_counts import class_counts, effective_number_weights
from reweight_losses.options import (
    BootstrapConfig,
    ClassBalancedConfig,
    ELRConfig,
    FocalConfig,
    GCEConfig,
    LDAMConfig,
    LogitAdjustedConfig,
    SCEConfig,
    SigmoidFocalConfig,
)

C = 4
COUNTS = (40, 20, 8, 1)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def context(counts=COUNTS, dtype=torch.float64, **changes):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    known = {
        "num_classes": len(counts),
        "train_size": len(labels),
        "train": SimpleNamespace(labels=labels),
        "device": torch.device("cpu"),
        "dtype": dtype,
        "epochs": 10,
        "together": SimpleNamespace(total=lambda part: part),
        "by_example": lambda tensor: tensor,
    }
    return SimpleNamespace(**known | changes)


@pytest.fixture
def batch():
    return Batch(torch.arange(12), torch.zeros(12, 1, dtype=torch.float64), torch.arange(12) % C)


@pytest.fixture
def logits():
    return 2 * torch.randn(12, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.fixture
def p(logits):
    return logits.softmax(1)


@pytest.fixture
def y(batch):
    return F.one_hot(batch.labels, C).double()


@pytest.fixture
def p_y(p, batch):
    return p.gather(1, batch.labels[:, None])


def rows_of(loss, batch, logits):
    logits = logits.clone().requires_grad_()
    (rows,) = torch.autograd.grad(loss.losses(batch, logits).sum(), logits)
    return rows


def step_of(batch, logits, **changes):
    """What the hooks of a step look at."""
    p = logits.softmax(1)
    known = {"ids": batch.ids, "labels": batch.labels, "logits": logits, "probabilities": p, "source": "train"}
    known["n"] = len(batch.ids)
    return SimpleNamespace(**known | changes)


def weights_of(loss, step, weights):
    """What a wrapper around `example_weights` makes of a method's weights."""
    generator = loss.example_weights(step, weights)
    next(generator)
    with pytest.raises(StopIteration) as stop:
        generator.send(weights)
    return stop.value.value


def is_cross_entropy(loss, batch, logits):
    """Bit for bit, values and gradients."""
    logits = logits.float()
    reference = SimpleNamespace(losses=lambda batch, at: F.cross_entropy(at, batch.labels, reduction="none"))
    return torch.equal(loss.losses(batch, logits), reference.losses(batch, logits)) and torch.equal(
        rows_of(loss, batch, logits), rows_of(reference, batch, logits)
    )


class TestGCE:
    def test_the_gradient_is_weighted_by_a_power_of_the_probability(self, batch, logits, p, y, p_y):
        loss = gce.build(GCEConfig(q=0.7), context())

        torch.testing.assert_close(loss.losses(batch, logits), ((1 - p_y**0.7) / 0.7).squeeze(1), **EXACT)
        torch.testing.assert_close(rows_of(loss, batch, logits), p_y**0.7 * (p - y), **EXACT)

    def test_near_zero_it_is_cross_entropy_and_at_one_absolute_error(self, batch, logits, p, y, p_y):
        near_zero, one = (gce.build(GCEConfig(q=q), context()) for q in (1e-9, 1.0))

        torch.testing.assert_close(rows_of(near_zero, batch, logits), p - y, rtol=1e-6, atol=1e-8)
        absolute_error = (p - y).abs().sum(1)
        torch.testing.assert_close(one.losses(batch, logits), absolute_error / 2, **EXACT)

    def test_the_weight_of_the_gradient_is_recorded(self, batch, logits, p_y):
        loss = gce.build(GCEConfig(q=0.7), context())
        recorded = weights_of(loss, step_of(batch, logits), torch.full((12,), 2.0, dtype=torch.float64))

        torch.testing.assert_close(recorded, 2 * p_y.squeeze(1) ** 0.7, **EXACT)


class TestTruncatedGCE:
    def loss(self, best=None, **changes):
        predictions = torch.eye(C, dtype=torch.float64)[torch.arange(sum(COUNTS)) % C] * 5
        asked = []

        def predict(examples, model=None):
            asked.append(model)
            return SimpleNamespace(logits=predictions)

        around = context(predict=predict, best_network=lambda: best)
        loss = gce.build(GCEConfig(q=0.7, truncate=0.5, **changes), around)
        right = predictions.argmax(1) == around.train.labels
        return loss, right, asked

    def test_while_all_are_kept_it_is_not_truncated(self, batch, logits):
        loss, _, _ = self.loss()
        plain = gce.build(GCEConfig(q=0.7), context())

        assert torch.equal(loss.losses(batch, logits), plain.losses(batch, logits))

    def test_what_the_best_network_finds_unlikely_is_constant(self, batch, logits):
        loss, right, asked = self.loss(best="the best", truncate_from=3)
        for epoch in (1, 2):
            loss.finish_epoch(epoch)
        assert not asked
        loss.finish_epoch(3)

        assert asked == ["the best"]
        assert torch.equal(loss.kept, right)
        kept = right[batch.ids]
        assert 0 < kept.sum() < len(kept)
        plain = gce.build(GCEConfig(q=0.7), context())
        expected = torch.where(kept, plain.losses(batch, logits), (1 - 0.5**0.7) / 0.7)
        torch.testing.assert_close(loss.losses(batch, logits), expected, rtol=1e-6, atol=0)
        rows = rows_of(loss, batch, logits)
        assert torch.equal(rows[kept], rows_of(plain, batch, logits)[kept])
        assert rows[~kept].eq(0).all()
        recorded = weights_of(loss, step_of(batch, logits), torch.ones(12, dtype=torch.float64))
        assert torch.equal(recorded == 0, ~kept)

    def test_it_chooses_again_every_tenth_epoch_from_a_third_of_the_epochs_on(self):
        loss, _, asked = self.loss()
        for epoch in range(1, 30):
            loss.finish_epoch(epoch)
        # 4 of 10 epochs, then 14 and 24
        assert len(asked) == 3

    def test_clean_examples_are_all_kept(self, batch, logits):
        loss, _, _ = self.loss()
        loss.kept.zero_()
        clean = Batch(batch.ids + 1000, batch.inputs, batch.labels, source="meta")

        plain = gce.build(GCEConfig(q=0.7), context())
        assert torch.equal(loss.losses(clean, logits), plain.losses(clean, logits))


class TestSCE:
    def test_value_and_row(self, batch, logits, p, y, p_y):
        loss = sce.SCE(SCEConfig(alpha=0.3, beta=0.8), context())

        reverse = -math.log(1e-4) * (1 - p_y.squeeze(1))
        ce = -p_y.squeeze(1).log()
        torch.testing.assert_close(loss.losses(batch, logits), 0.3 * ce + 0.8 * reverse, **EXACT)
        row = (0.3 - 0.8 * math.log(1e-4) * p_y) * (p - y)
        torch.testing.assert_close(rows_of(loss, batch, logits), row, **EXACT)


class TestBootstrap:
    def test_hard_holds_the_predicted_class_fixed(self, batch, logits, p, y):
        loss = bootstrap.build(BootstrapConfig(target="hard"), context())
        z = F.one_hot(logits.argmax(1), C).double()

        torch.testing.assert_close(rows_of(loss, batch, logits), p - 0.8 * y - 0.2 * z, **EXACT)

    def test_soft_is_differentiated_through_the_target(self, batch, logits, p, y):
        loss = bootstrap.build(BootstrapConfig(target="soft"), context())
        log_p = p.log()
        entropy_row = -p * (log_p - (p * log_p).sum(1, keepdim=True))

        torch.testing.assert_close(rows_of(loss, batch, logits), 0.95 * (p - y) + 0.05 * entropy_row, **EXACT)

    @pytest.mark.parametrize("target", ["hard", "soft"])
    def test_with_the_label_alone_it_is_cross_entropy(self, batch, logits, target):
        assert is_cross_entropy(bootstrap.build(BootstrapConfig(target=target, beta=1.0), context()), batch, logits)


class TestELR:
    def test_averages_begin_at_zero_and_follow_clamped_predictions(self, batch, logits):
        loss = elr.ELR(ELRConfig(beta=0.7), context())
        certain = logits.clone()
        certain[0] = torch.tensor([60.0, 0, 0, 0])
        expected = torch.zeros(sum(COUNTS), C, dtype=torch.float64)
        for visited in (certain, logits, certain):
            loss.follow_forward(step_of(batch, visited))
            q = visited.softmax(1).clamp(1e-4, 1 - 1e-4)
            expected[:12] = 0.7 * expected[:12] + 0.3 * q / q.sum(1, keepdim=True)

        torch.testing.assert_close(loss.t, expected, **EXACT)

    def test_a_row(self, batch, logits, p, y):
        loss = elr.ELR(ELRConfig(lambda_=3.0), context())
        logits[0] = torch.tensor([30.0, 0, 0, 0])
        p = logits.softmax(1)
        loss.t.copy_(torch.rand(loss.t.shape, generator=torch.Generator().manual_seed(0)).softmax(1))
        t = loss.t[:12]
        # the clamp stops the derivative where it acts
        clamped = p.clamp(1e-4, 1 - 1e-4)
        u = torch.where(clamped == p, t, 0)
        inner = 1 - (t * clamped).sum(1, keepdim=True)
        expected = (p - y) - 3.0 * p * (u - (u * p).sum(1, keepdim=True)) / inner

        torch.testing.assert_close(rows_of(loss, batch, logits), expected, **EXACT)

    def test_the_logit_of_what_it_was_taken_for_rises_whatever_the_label(self, batch, logits, p):
        loss = elr.ELR(ELRConfig(lambda_=3.0), context())
        loss.t[:, 2] = 1.0
        ce = elr.ELR(ELRConfig(lambda_=0.0), context())

        pulled = rows_of(loss, batch, logits) - rows_of(ce, batch, logits)
        torch.testing.assert_close(pulled[:, 2], -3.0 * p[:, 2], **EXACT)

    def test_without_regularisation_it_is_cross_entropy(self, batch, logits):
        loss = elr.ELR(ELRConfig(lambda_=0.0), context(dtype=torch.float32))
        loss.follow_forward(step_of(batch, logits.float()))

        assert loss.t[:12].gt(0).all()
        assert is_cross_entropy(loss, batch, logits)

    def test_examples_of_another_set_are_not_remembered(self, batch, logits):
        loss = elr.ELR(ELRConfig(), context())
        loss.follow_forward(step_of(batch, logits, source="meta"))

        assert loss.t.eq(0).all()
        clean = Batch(batch.ids + 1000, batch.inputs, batch.labels, source="meta")
        assert is_cross_entropy(loss, clean, logits)


class TestFocal:
    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
    def test_the_gradient_is_weighted_by_f(self, batch, logits, p, y, p_y, gamma):
        loss = focal.Focal(FocalConfig(gamma=gamma), context())
        f = (1 - p_y) ** gamma - gamma * p_y * (1 - p_y) ** (gamma - 1) * p_y.log()

        torch.testing.assert_close(rows_of(loss, batch, logits), f * (p - y), **EXACT)
        recorded = weights_of(loss, step_of(batch, logits), torch.full((12,), 3.0, dtype=torch.float64))
        torch.testing.assert_close(recorded, 3 * f.squeeze(1), **EXACT)

    def test_with_the_power_zero_it_is_cross_entropy(self, batch, logits):
        assert is_cross_entropy(focal.Focal(FocalConfig(gamma=0.0), context()), batch, logits)

    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_an_example_that_is_fitted_perfectly_has_no_gradient(self, gamma):
        loss = focal.Focal(FocalConfig(gamma=gamma), context())
        batch = Batch(torch.arange(1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))

        assert rows_of(loss, batch, torch.tensor([[200.0, 0, 0, 0]])).eq(0).all()


class TestSigmoidFocal:
    def test_rows_are_those_of_each_class_by_itself(self, batch, logits, y):
        g = 1.5
        loss = focal.SigmoidFocal(SigmoidFocalConfig(gamma=g), context())
        s = logits.sigmoid()
        target = (1 - s) ** g * (g * s * s.log() - (1 - s))
        others = s**g * (s - g * (1 - s) * (1 - s).log())

        torch.testing.assert_close(rows_of(loss, batch, logits), y * target + (1 - y) * others, **EXACT)

    def test_with_the_power_zero_it_is_binary_cross_entropy(self, batch, logits, y):
        loss = focal.SigmoidFocal(SigmoidFocalConfig(gamma=0.0), context())
        expected = F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1)

        torch.testing.assert_close(loss.losses(batch, logits), expected, **EXACT)

    def test_class_weights(self, batch, logits):
        plain = focal.SigmoidFocal(SigmoidFocalConfig(), context())
        weighted = focal.SigmoidFocal(SigmoidFocalConfig(beta=0.9), context())
        w = effective_number_weights(class_counts(context()), 0.9)[batch.labels]

        torch.testing.assert_close(weighted.losses(batch, logits), w * plain.losses(batch, logits), **EXACT)

    def test_every_class_begins_with_its_share(self):
        model = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, C))
        before = model[0].bias.clone()
        focal.SigmoidFocal(SigmoidFocalConfig(), context()).initialise_network(model)

        torch.testing.assert_close(model[1].bias.sigmoid(), torch.full((C,), 1 / C))
        assert torch.equal(model[0].bias, before)

    def test_a_head_without_bias_stays(self):
        model = nn.Linear(3, C, bias=False)
        focal.SigmoidFocal(SigmoidFocalConfig(), context()).initialise_network(model)


class TestClassWeights:
    @pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
    def test_effective_numbers_of_cui(self, beta):
        counts = torch.tensor([5000.0, 500.0, 50.0], dtype=torch.float64)
        w = [(1 - beta) / (1 - beta**n) for n in counts.tolist()]

        expected = 3 * torch.tensor(w, dtype=torch.float64) / sum(w)
        torch.testing.assert_close(effective_number_weights(counts, beta), expected, rtol=1e-9, atol=0)

    # CIFAR-10 of 5000 to 50 images a class
    @pytest.mark.parametrize(("beta", "ratio"), [(0.9999, 78.9), (0.999, 20.4), (0.99, 2.5)])
    def test_ratio_of_the_last_class_to_the_first(self, beta, ratio):
        w = effective_number_weights(torch.tensor([5000.0, 50.0], dtype=torch.float64), beta)

        assert (w[1] / w[0]).item() == pytest.approx(ratio, rel=0.02)

    def test_the_limit_is_inverse_frequency(self):
        counts = torch.tensor(COUNTS, dtype=torch.float64)
        limit, near = (effective_number_weights(counts, beta) for beta in (1.0, 1 - 1e-12))

        torch.testing.assert_close(limit, (1 / counts) / (1 / counts).mean(), **EXACT)
        torch.testing.assert_close(near, limit, rtol=1e-6, atol=0)

    def test_with_beta_zero_all_weights_are_one(self):
        assert effective_number_weights(torch.tensor(COUNTS, dtype=torch.float64), 0.0).eq(1).all()

    def test_a_class_without_examples_counts_as_the_smallest_and_takes_no_weight_from_others(self):
        assert class_counts(context(counts=(3, 0, 2))).tolist() == [3, 2, 2]
        equal = effective_number_weights(class_counts(context(counts=(4, 0, 4))), 0.9999)
        torch.testing.assert_close(equal, torch.ones(3, dtype=torch.float64))


class TestClassBalanced:
    def loss(self, counts=COUNTS, dtype=torch.float64, **options):
        return class_balanced.ClassBalanced(ClassBalancedConfig(**options), context(counts, dtype))

    def test_rows_and_recorded_weights(self, batch, logits, p, y):
        loss = self.loss(beta=0.9)
        w = effective_number_weights(class_counts(context()), 0.9)[batch.labels]

        torch.testing.assert_close(rows_of(loss, batch, logits), w[:, None] * (p - y), **EXACT)
        recorded = weights_of(loss, step_of(batch, logits), torch.full((12,), 2.0, dtype=torch.float64))
        torch.testing.assert_close(recorded, 2 * w, **EXACT)

    def test_by_the_sum_of_weights_it_is_pytorchs_weighted_cross_entropy(self, batch, logits):
        loss = self.loss(beta=0.9, normalise="weights")
        w = effective_number_weights(class_counts(context()), 0.9)

        expected = F.cross_entropy(logits, batch.labels, weight=w)
        torch.testing.assert_close(loss.losses(batch, logits).mean(), expected, **EXACT)

    @pytest.mark.parametrize("normalise", ["examples", "weights"])
    def test_with_equal_counts_it_is_cross_entropy(self, batch, logits, normalise):
        loss = self.loss((7, 7, 7, 7), torch.float32, normalise=normalise)

        assert is_cross_entropy(loss, batch, logits)

    def test_inverse_frequency_has_the_gradient_of_class_balanced_sampling(self):
        around = context()
        labels = around.train.labels
        batch = Batch(torch.arange(len(labels)), torch.zeros(len(labels), 1), labels)
        logits = torch.randn(len(labels), C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        rows = rows_of(self.loss(beta=1.0, normalise="weights"), batch, logits)

        per_class = F.one_hot(labels).double() / torch.tensor(COUNTS).double()
        expected = (per_class @ torch.full((C,), 1 / C, dtype=torch.float64))[:, None] * len(labels)
        torch.testing.assert_close(rows, expected * (logits.softmax(1) - F.one_hot(labels)), **EXACT)

    def test_deferred_weights_begin_after_their_epoch(self, batch, logits):
        deferred, from_the_start = self.loss(beta=0.9, from_=2), self.loss(beta=0.9)
        ce = F.cross_entropy(logits, batch.labels, reduction="none")
        deferred.finish_epoch(1)
        assert torch.equal(deferred.losses(batch, logits), ce)
        deferred.finish_epoch(2)

        assert torch.equal(deferred.losses(batch, logits), from_the_start.losses(batch, logits))
        resumed = self.loss(beta=0.9, from_=2)
        resumed.load_state_dict(deferred.state_dict())
        resumed.finish_epoch(3)
        assert torch.equal(resumed.losses(batch, logits), from_the_start.losses(batch, logits))


class TestLogitAdjusted:
    def test_balanced_softmax(self, batch, logits, y):
        loss = logit_adjusted.balanced_softmax(None, context())
        weighted = torch.tensor(COUNTS) * logits.exp()

        torch.testing.assert_close(rows_of(loss, batch, logits), weighted / weighted.sum(1, keepdim=True) - y, **EXACT)

    def test_a_factor_of_the_log_frequency(self, batch, logits):
        loss = logit_adjusted.logit_adjusted(LogitAdjustedConfig(tau=0.5), context())
        expected = F.cross_entropy(logits + 0.5 * torch.tensor(COUNTS).double().log(), batch.labels, reduction="none")

        torch.testing.assert_close(loss.losses(batch, logits), expected, **EXACT)

    def test_with_equal_counts_it_is_cross_entropy(self, batch, logits):
        assert is_cross_entropy(
            logit_adjusted.balanced_softmax(None, context((9, 9, 9, 9), torch.float32)), batch, logits
        )

    def test_a_class_without_examples_leaves_it_finite(self, batch, logits):
        loss = logit_adjusted.balanced_softmax(None, context((9, 9, 9, 0)))

        assert loss.losses(batch, logits).isfinite().all()


class TestLDAM:
    def test_margins_are_taken_from_the_logit_at_the_label(self, batch, logits, y):
        loss = ldam.LDAM(LDAMConfig(max_margin=0.4, reweight_from=5), context())
        # the smallest class has one example, so the largest N^(-1/4) is 1
        margins = 0.4 * torch.tensor(COUNTS, dtype=torch.float64) ** -0.25
        shifted = 30 * (logits / 30 - margins * y)

        torch.testing.assert_close(rows_of(loss, batch, logits), shifted.softmax(1) - y, **EXACT)

    def test_without_margin_it_is_cross_entropy(self, batch, logits):
        around = context(dtype=torch.float32)

        assert is_cross_entropy(ldam.LDAM(LDAMConfig(max_margin=0.0), around), batch, logits)

    def test_late_weights_are_pytorchs(self, batch, logits):
        loss = ldam.LDAM(LDAMConfig(max_margin=0.0), context())
        w = effective_number_weights(class_counts(context()), 0.9999)
        loss.finish_epoch(7)
        assert loss.weights.w.eq(1).all()
        loss.finish_epoch(8)

        expected = F.cross_entropy(logits, batch.labels, weight=w)
        torch.testing.assert_close(loss.losses(batch, logits).mean(), expected, **EXACT)
