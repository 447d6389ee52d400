import copy
from functools import partial

import attrs
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from reweight_core import Stage, UserError
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.testing.exact_run import (
    META_SIZE,
    MOMENTUM,
    STEPS,
    ExactRun,
    batch,
    make_context,
    make_examples,
    make_network,
    make_splits,
)
from reweight_method_l2rw import plugin
from reweight_method_l2rw.l2rw import rectify_and_normalise
from reweight_method_l2rw.options import L2RWConfig, WeightedConfig

EXACT_STRATEGIES = ("jvp", "double")

DECAY = 0.05
PAPER = L2RWConfig(max_weight=0)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def make_method(record, config=None, seed=10):
    return record.build(config or record.config(), make_context(seed=seed, weight_decay=DECAY))


UnderTest = partial(ExactRun, weight_decay=DECAY)


class Transcription:
    """Algorithm 1 as published: epsilon in the loss, a virtual step in the graph, weights that sum to 1."""

    def __init__(self, clean_decay, virtual_rate=1.0):
        self.model = make_network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
        self.clean_decay, self.virtual_rate = clean_decay, virtual_rate
        self.train, self.meta = make_splits()

    def weights(self, x, y):
        x_meta, y_meta = batch(self.meta, range(META_SIZE))
        virtual = copy.deepcopy(self.model)
        epsilon = torch.zeros(len(y), dtype=torch.float64, requires_grad=True)
        loss = torch.sum(epsilon * F.cross_entropy(virtual(x), y, reduction="none"))
        names, theta = zip(*virtual.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        theta_hat = {name: p - self.virtual_rate * g for name, p, g in zip(names, theta, gradients, strict=True)}
        clean_loss = F.cross_entropy(functional_call(virtual, theta_hat, (x_meta,)), y_meta)
        for name in ("conv1.weight", "conv2.weight", "head.weight"):
            clean_loss = clean_loss + self.clean_decay * 0.5 * theta_hat[name].pow(2).sum()
        (gradient,) = torch.autograd.grad(clean_loss, epsilon)
        w = torch.maximum(-gradient, torch.zeros(()))
        total = w.sum()
        return w / total if total > 0 else w

    def take(self, ids, lr):
        x, y = batch(self.train, ids)
        w = self.weights(x, y)
        loss = torch.sum(w * F.cross_entropy(self.model(x), y, reduction="none"))
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return w


def assert_same(found, expected, **precision):
    found, expected = dict(found), dict(expected)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **precision, msg=lambda m, n=name: f"{n}: {m}")


class TestAgainstTheAlgorithm:
    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    @pytest.mark.parametrize("clean_decay", [True, False])
    def test_weights_and_classifier_after_every_step(self, clean_decay, strategy):
        tested = UnderTest(make_method(plugin.l2rw, attrs.evolve(PAPER, clean_decay=clean_decay)), strategy)
        reference = Transcription(DECAY if clean_decay else 0)
        for ids, lr in STEPS:
            n = len(ids)
            found, expected = tested.take(ids, lr), reference.take(ids, lr)
            assert 0 < expected.count_nonzero() < n
            torch.testing.assert_close(found, n * expected, **EXACT)
            assert_same(tested.model.state_dict(), reference.model.state_dict(), **EXACT)

    @pytest.mark.parametrize("virtual_rate", [0.25, 1, 3])
    def test_the_size_of_the_published_virtual_step_makes_no_difference(self, virtual_rate):
        ids, lr = STEPS[0]
        found = UnderTest(make_method(plugin.l2rw, PAPER)).take(ids, lr)

        torch.testing.assert_close(found, len(ids) * Transcription(DECAY, virtual_rate).take(ids, lr), **EXACT)

    def test_a_learning_rate_of_zero_gives_the_same_weights(self):
        ids, lr = STEPS[0]
        zero, other = (UnderTest(make_method(plugin.l2rw, PAPER)).take(ids, rate) for rate in (0.0, lr))

        assert torch.equal(zero, other)

    def test_weight_decay_of_the_clean_loss_matters(self):
        ids, lr = STEPS[0]
        weights = [
            UnderTest(make_method(plugin.l2rw, attrs.evolve(PAPER, clean_decay=each))).take(ids, lr)
            for each in (True, False)
        ]

        assert (weights[0] - weights[1]).abs().max() > 1e-3

    def test_strategies_agree(self):
        runs = [UnderTest(make_method(plugin.l2rw, PAPER), strategy) for strategy in EXACT_STRATEGIES]
        for ids, lr in STEPS:
            torch.testing.assert_close(*(run.take(ids, lr) for run in runs), **EXACT)
        assert_same(*(run.model.state_dict() for run in runs), **EXACT)

    def test_weights_are_not_negative_and_sum_to_the_size_of_the_batch(self):
        tested = UnderTest(make_method(plugin.l2rw, PAPER))
        for ids, lr in STEPS:
            weights = tested.take(ids, lr)
            assert (weights >= 0).all()
            assert weights.sum().item() == pytest.approx(len(ids))


class TestBound:
    def test_weights_above_it_are_cut_off_and_the_others_stay(self):
        ids, lr = STEPS[0]
        unbounded = UnderTest(make_method(plugin.l2rw, PAPER)).take(ids, lr)
        bound = unbounded.quantile(0.7).item()
        bounded = UnderTest(make_method(plugin.l2rw, L2RWConfig(max_weight=bound))).take(ids, lr)

        assert torch.equal(bounded[unbounded <= bound], unbounded[unbounded <= bound])
        assert bounded[unbounded > bound].eq(bound).all()
        assert (unbounded > bound).sum() >= 2

    def test_the_network_follows_the_bounded_weights(self):
        ids, lr = STEPS[0]
        tested = UnderTest(make_method(plugin.l2rw, L2RWConfig(max_weight=0.5)))
        plain = copy.deepcopy(tested.model)
        weights = tested.take(ids, lr)
        x, y = batch(make_splits()[0], ids)
        (weights * F.cross_entropy(plain(x), y, reduction="none")).mean().backward()
        torch.optim.SGD(plain.parameters(), lr=lr, weight_decay=DECAY).step()

        assert weights.max() == 0.5
        assert_same(tested.model.state_dict(), plain.state_dict(), **EXACT)

    def test_the_preset_of_the_paper_has_none(self):
        assert L2RWConfig(**plugin.l2rw.presets["paper"]) == PAPER
        assert L2RWConfig().max_weight > 1


class TestNothingHelps:
    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    def test_a_clean_batch_without_a_gradient_gives_no_weight_to_anything(self, strategy):
        tested = UnderTest(make_method(plugin.l2rw, attrs.evolve(PAPER, clean_decay=False)), strategy, logit_scale=1e7)
        inputs = tested.meta.batch(torch.arange(META_SIZE), None).inputs
        # at this scale a network whose labels are its predictions has no residual left
        tested.meta.labels.copy_(make_network()(inputs).argmax(1))
        before = copy.deepcopy(tested.model)

        weights = tested.take(range(10), 0.25)

        assert weights.eq(0).all()
        # weight decay alone moves the parameters
        for found, old in zip(tested.model.parameters(), before.parameters(), strict=True):
            torch.testing.assert_close(found, old * (1 - 0.25 * DECAY), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    def test_a_training_batch_of_harmful_examples_gets_no_weight(self, strategy):
        # every training image is the same clean one, with a label that the clean batch denies
        tested = UnderTest(make_method(plugin.l2rw, attrs.evolve(PAPER, clean_decay=False)), strategy)
        tested.meta.images.copy_(tested.meta.images[:1].expand_as(tested.meta.images))
        tested.train.images.copy_(tested.meta.images[:1].expand_as(tested.train.images))
        tested.meta.labels.fill_(0)
        tested.train.labels.fill_(1)

        assert tested.take(range(10), 0.25).eq(0).all()

        tested.train.labels[:5] = 0
        weights = tested.take(range(10), 0.25)
        torch.testing.assert_close(weights[:5], torch.full((5,), 2.0, dtype=torch.float64))
        assert weights[5:].eq(0).all()


vectors = st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e30), st.floats(-1e30, -1e-30)), min_size=1, max_size=20)


class TestRectification:
    @settings(max_examples=200)
    @given(vectors)
    def test_weights_are_not_negative_and_sum_to_one_or_zero(self, values):
        u = torch.tensor(values, dtype=torch.float64)
        w = rectify_and_normalise(u)

        assert (w >= 0).all()
        assert w.sum().item() == pytest.approx(1.0 if (u > 0).any() else 0.0, abs=1e-12)
        assert w[u <= 0].eq(0).all()

    @settings(max_examples=100)
    @given(vectors, st.floats(1e-6, 1e6))
    def test_the_scale_makes_no_difference(self, values, scale):
        u = torch.tensor(values, dtype=torch.float64)

        torch.testing.assert_close(rectify_and_normalise(scale * u), rectify_and_normalise(u), rtol=1e-9, atol=0)

    def test_positive_entries_keep_their_proportions(self):
        w = rectify_and_normalise(torch.tensor([3.0, -5.0, 0.0, 1.0]))

        assert w.tolist() == [0.75, 0, 0, 0.25]


class TestRandomWeights:
    @staticmethod
    def make(seed=4):
        return make_method(plugin.random, seed=seed)

    def test_weights_are_not_negative_and_sum_to_the_size_of_the_batch(self):
        tested = UnderTest(self.make())
        for ids, lr in STEPS:
            weights = tested.take(ids, lr)
            assert (weights >= 0).all()
            assert weights.sum().item() == pytest.approx(len(ids))

    def test_about_half_of_them_are_zero_and_the_rest_is_half_normal(self):
        tested = UnderTest(self.make())
        drawn = torch.stack([tested.take(range(10), 0.0) for _ in range(200)])

        zeros = drawn.eq(0).double().mean().item()
        assert abs(zeros - 0.5) < 4.5 * (0.25 / drawn.numel()) ** 0.5
        # of a half-normal variable the mean is sqrt(2/pi) and the second moment 1, whatever the normalisation
        positive = drawn[drawn > 0]
        ratio = (positive.square().mean() / positive.mean().square()).item()
        assert 1.4 < ratio < 1.9

    def test_they_do_not_depend_on_the_examples(self):
        first, second = (UnderTest(self.make()).take(ids, 0.25) for ids in (range(10), range(10, 20)))

        assert torch.equal(first, second)

    def test_the_seed_at_building_decides_and_every_step_draws_anew(self):
        runs = []
        for seed in (4, 4, 5):
            tested = UnderTest(self.make(seed))
            runs.append(torch.cat([tested.take(ids, lr) for ids, lr in STEPS]))

        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])
        assert not torch.equal(runs[0][:10], runs[0][10:20])

    def test_a_restored_method_goes_on_with_the_same_draws(self):
        tested, restored = UnderTest(self.make(4)), UnderTest(self.make(5))
        tested.take(*STEPS[0])
        restored.method.load_state_dict(copy.deepcopy(tested.method.state_dict()))

        for ids, lr in STEPS[1:]:
            assert torch.equal(restored.take(ids, lr), tested.take(ids, lr))

    def test_the_classifier_follows_the_weighted_losses(self):
        tested = UnderTest(self.make())
        plain = copy.deepcopy(tested.model)
        ids, lr = STEPS[0]
        weights = tested.take(ids, lr)
        x, y = batch(make_splits()[0], ids)
        (weights * F.cross_entropy(plain(x), y, reduction="none")).mean().backward()
        torch.optim.SGD(plain.parameters(), lr=lr, weight_decay=DECAY).step()

        assert_same(tested.model.state_dict(), plain.state_dict(), **EXACT)


class TestWeighted:
    @staticmethod
    def make(**options):
        return make_method(plugin.weighted, WeightedConfig(**options))

    def test_weights_are_the_shares_of_right_labels_that_counting_gives(self):
        # 25 examples of each of 4 classes, and every 5th of each of them turned into class 2
        true = torch.arange(100) % 4
        observed = torch.where((torch.arange(100) // 4) % 5 == 0, 2, true)
        share = torch.stack([(true == observed)[observed == c].double().mean() for c in range(4)])

        torch.testing.assert_close(self.make(background=2, rate=0.2).clean_share, share)

    def test_they_have_mean_one_over_the_batch(self):
        tested = UnderTest(self.make(background=1, rate=0.4))
        weights = tested.take([0, 1, 2, 3, 5], 0.25)
        # labels 0 1 2 3 1; (1/4) / (0.4 + 0.6/4) = 5/11
        expected = torch.tensor([1, 5 / 11, 1, 1, 5 / 11], dtype=torch.float64)

        torch.testing.assert_close(weights, 5 * expected / expected.sum())

    def test_a_share_of_wrong_labels_of_zero_is_plain_training(self):
        assert UnderTest(self.make(rate=0.0)).take(range(10), 0.25).eq(1).all()

    def test_the_background_is_the_most_frequent_class_unless_given(self):
        train = make_examples(make_splits()[0])
        train.labels[:4] = 3
        method = plugin.weighted.build(WeightedConfig(), make_context(train=train))

        assert (method.clean_share < 1).nonzero().tolist() == [[3]]

    def test_a_background_that_is_no_class_is_refused(self):
        with pytest.raises(UserError, match="--background 4: the classes are 0 to 3"):
            self.make(background=4)


class TestCleanOnly:
    def test_the_one_stage_is_the_run_on_the_meta_set(self):
        hooks = MethodHooks(make_method(plugin.clean_only), "clean-only")

        (stage,) = hooks.plan_stages(Stage("train", epochs=7, lr=0.3))

        assert (stage.source, stage.epochs, stage.lr) == ("meta", 7, 0.3)

    def test_it_is_plain_training_on_the_meta_set(self):
        tested = UnderTest(make_method(plugin.clean_only))
        (stage,) = tested.hooks.plan_stages(Stage("train", epochs=1, lr=0.25))
        plain = make_network()
        optimizer = torch.optim.SGD(plain.parameters(), lr=stage.lr, momentum=MOMENTUM, weight_decay=DECAY)
        for ids in ([0, 1, 2, 3], [4, 5, 0], [1, 5, 3, 2]):
            x, y = batch(make_splits()[1], ids)
            optimizer.zero_grad()
            F.cross_entropy(plain(x), y).backward()
            optimizer.step()

            tested.take(ids, stage.lr, stage.source)

            assert_same(tested.model.state_dict(), plain.state_dict(), **EXACT)
        assert tested.step.samples.tensors["visits"].eq(0).all()

    def test_the_noisy_training_set_has_no_influence(self):
        runs = [UnderTest(make_method(plugin.clean_only), train_seed=seed) for seed in (2, 9)]
        assert not torch.equal(runs[0].train.images, runs[1].train.images)
        for run in runs:
            run.take([0, 1, 2, 3], 0.25, "meta")

        assert_same(*(run.model.state_dict() for run in runs), rtol=0, atol=0)


def test_what_needs_a_meta_set_and_what_looks_ahead():
    records = (plugin.l2rw, plugin.clean_only, plugin.random, plugin.weighted)

    assert [record.needs_meta_set for record in records] == [True, True, False, False]
    assert [record.looks_ahead for record in records] == ["network", "no", "no", "no"]
