import copy
from types import SimpleNamespace

import attrs
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from reweight_core import hookimpl
from reweight_core.data.feeder import Fed
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.testing.exact_run import (
    CLASSES,
    META_SIZE,
    MOMENTUM,
    SIZE,
    STEPS,
    ExactRun,
    batch,
    make_context,
    make_network,
    make_splits,
)
from reweight_method_gdw.gdw import constrain, manipulate, residuals
from reweight_method_gdw.options import GDWConfig
from reweight_method_gdw.plugin import plugin

EXACT_STRATEGIES = ("jvp", "double")

DECAY = 0.01
CONFIG = GDWConfig(eta_w=2.0, clip=0.2, weight_lr=0.02, weight_l2=0.03, weight_hidden=9)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


class UnderTest(ExactRun):
    def __init__(self, config=CONFIG, logit_scale=1.0, strategy="jvp"):
        context = make_context(weight_decay=DECAY)
        torch.manual_seed(1)
        super().__init__(plugin.build(config, context), strategy, logit_scale, weight_decay=DECAY)

    def take(self, ids, lr, source="train"):
        return super().take(ids, lr, source), self.watcher.gradients[-1]


def zero_mean_target(rows, p, labels):
    """The rows of weights with the entry at the label replaced, one example after the other."""
    replaced = []
    for row, q, t in zip(rows, p, labels.tolist(), strict=True):
        others = [j for j in range(CLASSES) if j != t]
        at_label = sum(row[j] * q[j] for j in others) / (1 - q[t])
        replaced.append(torch.stack([at_label if j == t else row[j] for j in range(CLASSES)]))
    return torch.stack(replaced)


class Transcription:
    """Algorithm 1 with a virtual copy of the network and a graph of its gradient; clamps as published."""

    def __init__(self, phi, config=CONFIG, logit_scale=1.0):
        self.config = config
        self.model = make_network(logit_scale)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
        hidden = config.weight_hidden
        self.V = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid()).double()
        with torch.no_grad():
            for own, given_parameter in zip(self.V.parameters(), phi, strict=True):
                own.copy_(given_parameter)
        self.V_optimizer = torch.optim.Adam(self.V.parameters(), lr=config.weight_lr, weight_decay=config.weight_l2)
        self.train, self.meta = make_splits()
        # how often each of the published clamps changed something
        self.bites = dict.fromkeys(("sure and right", "sure and wrong", "clip", "no clip", "floor"), 0)

    def probabilities(self, logits, one_hot):
        p = logits.detach().softmax(1)
        self.bites["sure and right"] += ((p > 0.999) & (one_hot == 1)).sum().item()
        self.bites["sure and wrong"] += ((p > 0.999) & (one_hot == 0)).sum().item()
        return p.clamp(0, 0.999)

    def take(self, ids, lr):
        x, y = batch(self.train, ids)
        x_meta, y_meta = batch(self.meta, range(META_SIZE))
        n, one_hot = len(y), torch.eye(CLASSES, dtype=torch.float64)[y]

        # first stage: the weighting network's output for every class, with the mean of each row at 0
        virtual = copy.deepcopy(self.model)
        logits = virtual(x)
        p = self.probabilities(logits, one_hot)
        v = self.V(F.cross_entropy(logits, y, reduction="none").detach().reshape(-1, 1))
        w = zero_mean_target(v.expand(n, CLASSES), p, y)

        # virtual step and the clean loss after it
        names, theta = zip(*virtual.named_parameters(), strict=True)
        gradients = torch.autograd.grad(logits, theta, grad_outputs=(p - one_hot) * w / n, create_graph=True)
        theta_hat = {name: q - lr * g for name, q, g in zip(names, theta, gradients, strict=True)}
        meta_loss = F.cross_entropy(functional_call(virtual, theta_hat, (x_meta,)), y_meta)
        g, *phi_gradients = torch.autograd.grad(meta_loss, [w, *self.V.parameters()])

        # the weighting network's own step
        for q, gradient in zip(self.V.parameters(), phi_gradients, strict=True):
            q.grad = gradient
        self.V_optimizer.step()

        # second stage
        change = self.config.eta_w * g / g.abs().sum()
        too_large = change.abs() > self.config.clip
        self.bites["clip"] += too_large.sum().item()
        self.bites["no clip"] += (~too_large).sum().item()
        w = w.detach() - change.clamp(-self.config.clip, self.config.clip)
        self.bites["floor"] += (w < 1e-6).sum().item()
        w = w.clamp(1e-6, 1e6)

        # the real step
        logits = self.model(x)
        p = self.probabilities(logits, one_hot)
        w = zero_mean_target(w, p, y)
        D_prime = (p - one_hot) * w / n
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        logits.backward(D_prime)
        self.optimizer.step()
        return w, D_prime


def assert_same(found, expected, **precision):
    found, expected = dict(found), dict(expected)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **precision, msg=lambda m, n=name: f"{n}: {m}")


# configuration, scale of the logits, and what has to happen in the run for the test to be one of it
SETTINGS = {
    "changes within and beyond the clip": (CONFIG, 1.0, {"clip", "no clip"}),
    "confident predictions": (CONFIG, 25.0, {"sure and right", "sure and wrong"}),
    "weights down to the floor": (attrs.evolve(CONFIG, eta_w=100.0, clip=0.9), 1.0, {"clip", "floor"}),
    "no change of the weights": (attrs.evolve(CONFIG, eta_w=0.0), 1.0, {"no clip"}),
    "everything at once": (
        attrs.evolve(CONFIG, eta_w=100.0, clip=0.9),
        25.0,
        {"sure and right", "sure and wrong", "clip", "no clip", "floor"},
    ),
}


class TestAgainstTheAlgorithm:
    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    @pytest.mark.parametrize(("config", "logit_scale", "biting"), SETTINGS.values(), ids=SETTINGS)
    def test_weights_weighting_network_and_classifier_after_every_step(self, config, logit_scale, biting, strategy):
        tested = UnderTest(config, logit_scale, strategy)
        reference = Transcription(tested.method.V.phi, config, logit_scale)
        for ids, lr in STEPS:
            for found, expected in zip(tested.take(ids, lr), reference.take(ids, lr), strict=True):
                torch.testing.assert_close(found, expected, **EXACT)
            assert_same(tested.method.V.network.named_parameters(), reference.V.named_parameters(), **EXACT)
            assert_same(tested.model.state_dict(), reference.model.state_dict(), **EXACT)
        assert {name for name, count in reference.bites.items() if count} >= biting

    def test_strategies_agree(self):
        runs = [UnderTest(strategy=strategy) for strategy in EXACT_STRATEGIES]
        for ids, lr in STEPS:
            for found, expected in zip(*(run.take(ids, lr) for run in runs), strict=True):
                torch.testing.assert_close(found, expected, **EXACT)
        assert_same(*(run.model.state_dict() for run in runs), **EXACT)
        assert_same(*(run.method.state_dict() for run in runs), **EXACT)


class TestSpecialCases:
    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    def test_a_zero_meta_gradient_changes_no_weight(self, strategy):
        tested = UnderTest(logit_scale=1e7, strategy=strategy)
        for examples in (tested.train, tested.meta):
            inputs = examples.batch(torch.arange(len(examples)), None).inputs
            # at this scale a network whose labels are its predictions has no residual left
            examples.labels.copy_(make_network(1.0)(inputs).argmax(1))

        weights, D_prime = tested.take(range(SIZE), 0.125)
        assert tested.step.sums.meta_loss.item() == 0

        assert weights.isfinite().all()
        assert D_prime.eq(0).all()

    def test_a_learning_rate_of_zero_still_moves_the_weights(self):
        tested, still = UnderTest(), UnderTest(attrs.evolve(CONFIG, eta_w=0.0))
        (weights, _), (unmoved, _) = (each.take(range(10), 0.0) for each in (tested, still))

        assert weights.isfinite().all()
        assert (weights - unmoved).abs().max() > 0.05

    def test_with_a_tiny_rate_the_weights_approach_those_of_a_rate_of_zero(self):
        (small, _), (zero, _) = (UnderTest().take(range(10), lr) for lr in (2.0**-30, 0.0))

        torch.testing.assert_close(small, zero, rtol=1e-6, atol=1e-6)

    def test_no_weight_changes_by_more_than_the_clip(self):
        config = attrs.evolve(CONFIG, eta_w=1000.0, clip=0.05)
        tested = UnderTest(config)
        before = copy.deepcopy(tested.method.V)
        weights, _ = tested.take(range(10), 0.25)
        step = tested.watcher.steps[0]
        v = before(step.losses).detach()[:, None].expand_as(weights)

        changes = (weights - v)[step.one_hot == 0].abs()
        assert changes.max().item() == pytest.approx(0.05)
        assert changes.median().item() == pytest.approx(0.05)

    @pytest.mark.parametrize("logit_scale", [1.0, 25.0])
    def test_each_row_of_the_real_gradient_sums_to_zero(self, logit_scale):
        tested = UnderTest(logit_scale=logit_scale)
        for ids, lr in STEPS:
            _, D_prime = tested.take(ids, lr)
            assert D_prime.sum(1).abs().max().item() < 1e-15
            assert D_prime.abs().max().item() > 1e-3

    def test_between_look_aheads_the_first_stage_decides_within_the_constraint(self):
        tested = UnderTest(logit_scale=100.0)
        tested.step.feed(Fed(torch.arange(10), torch.arange(META_SIZE)))
        tested.step.lr.fill_(0.25)
        phi = copy.deepcopy(tested.method.V)
        tested.step.run(10, looks_ahead=False)
        step, weights = tested.watcher.steps[0], tested.watcher.weights[0]

        p = step.probabilities.clamp(max=0.999)
        # without a clamped probability the constraint would change nothing
        assert (step.probabilities > 0.999).any()
        expected = zero_mean_target(phi(step.losses).detach()[:, None].expand_as(p), p, step.labels)
        torch.testing.assert_close(weights, expected, **EXACT)
        assert tested.watcher.gradients[0].sum(1).abs().max().item() < 1e-15
        assert_same(tested.method.V.network.named_parameters(), phi.network.named_parameters(), rtol=0, atol=0)

    def test_it_needs_a_meta_set_and_looks_ahead_with_the_network(self):
        assert plugin.needs_meta_set
        assert plugin.looks_ahead == "network"

    # section 4.1 of the paper; the others are those of the official code
    @pytest.mark.parametrize(("classes", "eta_w"), [(10, 100), (100, 1000)])
    def test_defaults_are_those_of_the_paper(self, classes, eta_w):
        config = GDWConfig()

        assert plugin.build(config, make_context(num_classes=classes)).eta_w == eta_w
        assert (config.clip, config.weight_l2, config.weight_hidden) == (0.2, 1e-4, 100)

    def test_a_step_size_of_zero_is_a_step_size(self):
        assert plugin.build(GDWConfig(eta_w=0.0), make_context()).eta_w == 0


class Focal:
    """Focal loss (1 - p_y)^2 (-log p_y)."""

    @hookimpl
    def losses(self, batch, logits):
        log_p = logits.log_softmax(1).gather(1, batch.labels[:, None]).squeeze(1)
        return -((1 - log_p.exp()) ** 2) * log_p


class Forward:
    """Cross-entropy of T^T p, with the labels of the first class mostly of another true class."""

    T = torch.tensor(
        [[0.1, 0.1, 0.1, 0.7], [0.3, 0.6, 0.0, 0.1], [0.0, 0.2, 0.8, 0.0], [0.6, 0.1, 0.1, 0.2]], dtype=torch.float64
    )

    @hookimpl
    def losses(self, batch, logits):
        return F.nll_loss((logits.softmax(1) @ self.T).log(), batch.labels, reduction="none")


class UnderLoss(UnderTest):
    def __init__(self, loss, config=CONFIG, strategy="jvp"):
        super().__init__(config, strategy=strategy)
        self.step.hooks = self.hooks = MethodHooks(self.method, "gdw", [self.watcher], loss=("loss", loss))


@pytest.mark.parametrize("loss", [Focal(), Forward()], ids=["focal", "forward"])
class TestOtherLosses:
    def test_each_row_of_the_real_gradient_sums_to_zero(self, loss):
        tested = UnderLoss(loss)
        for ids, lr in STEPS:
            _, D_prime = tested.take(ids, lr)
            assert D_prime.sum(1).abs().max().item() < 1e-15
            assert D_prime.abs().max().item() > 1e-3

    def test_strategies_agree(self, loss):
        runs = [UnderLoss(loss, strategy=strategy) for strategy in EXACT_STRATEGIES]
        for ids, lr in STEPS:
            for found, expected in zip(*(run.take(ids, lr) for run in runs), strict=True):
                torch.testing.assert_close(found, expected, **EXACT)
        assert_same(*(run.method.state_dict() for run in runs), **EXACT)

    def test_without_the_second_stage_the_gradient_is_that_of_the_weighted_losses(self, loss):
        tested = UnderLoss(loss, attrs.evolve(CONFIG, eta_w=0.0))
        before = copy.deepcopy(tested.method.V)
        _, D_prime = tested.take(range(20), 0.25)
        step = tested.watcher.steps[0]
        logits = step.logits.clone().requires_grad_()
        losses = loss.losses(SimpleNamespace(labels=step.labels), logits)
        (D,) = torch.autograd.grad((before(losses).detach() * losses).mean(), logits)

        torch.testing.assert_close(D_prime, D, **EXACT)

    def test_the_second_stage_moves_the_weights_against_their_share_of_the_clean_gradient(self, loss):
        ids, lr = STEPS[0]
        tested, still = UnderLoss(loss), UnderLoss(loss, attrs.evolve(CONFIG, eta_w=0.0))
        (weights, _), (unmoved, D_prime) = tested.take(ids, lr), still.take(ids, lr)
        step, model = tested.watcher.steps[0], make_network()
        x, _ = batch(make_splits()[0], ids)
        x_meta, y_meta = batch(make_splits()[1], range(META_SIZE))

        # the clean loss after a virtual step, as a function of D', with a graph of the step
        D_prime.requires_grad_()
        names, theta = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(model(x), theta, grad_outputs=D_prime, create_graph=True)
        theta_hat = {name: p - lr * g for name, p, g in zip(names, theta, gradients, strict=True)}
        clean_loss = F.cross_entropy(functional_call(copy.deepcopy(model), theta_hat, (x_meta,)), y_meta)
        (slope,) = torch.autograd.grad(clean_loss, D_prime)
        g = slope * step.D
        expected = unmoved - (CONFIG.eta_w * g / g.abs().sum()).clamp(-CONFIG.clip, CONFIG.clip)

        elsewhere = step.one_hot == 0
        torch.testing.assert_close(weights[elsewhere], expected[elsewhere], **EXACT)


class TestRecordedWeights:
    def test_it_is_the_factor_of_the_gradient_at_the_other_classes(self):
        tested = UnderTest()
        weights, D_prime = tested.take(range(10), 0.25)
        step = tested.watcher.steps[0]

        recorded = tested.step.samples.tensors["last_weight"][:10]
        for i, t in enumerate(step.labels.tolist()):
            others = [j for j in range(CLASSES) if j != t]
            factor = sum(abs(D_prime[i, j]) for j in others) / sum(abs(step.D[i, j]) for j in others)
            assert recorded[i].item() == pytest.approx(factor.item(), rel=1e-6)
            # an average of the weights there
            assert weights[i, others].min() < recorded[i] < weights[i, others].max()

    def test_what_a_component_adds_does_not_count(self):
        class Adding:
            @hookimpl(wrapper=True)
            def manipulate_gradient(self, step, weights):
                D_prime = yield
                return D_prime + 1

        method = plugin.build(CONFIG, make_context())
        p = torch.full((2, CLASSES), 0.25, dtype=torch.float64)
        y = torch.eye(CLASSES, dtype=torch.float64)[:2]
        step = SimpleNamespace(n=2, labels=torch.arange(2), probabilities=p, one_hot=y, D=(p - y) / 2)
        hooks = MethodHooks(method, "gdw", components={"adding": Adding()})
        weights = constrain(torch.full_like(p, 3.0), residuals(step), y)

        hooks.manipulate_gradient(step, weights)

        torch.testing.assert_close(hooks.example_weights(step, weights), torch.full((2,), 3.0, dtype=torch.float64))

    def test_of_an_example_that_is_fitted_perfectly_it_is_the_weight_at_the_label(self):
        method = plugin.build(CONFIG, make_context())
        y = torch.eye(CLASSES, dtype=torch.float64)[:2]
        # the first has no gradient at the other classes' logits, before or after
        p = torch.stack([y[0], torch.full((CLASSES,), 0.25, dtype=torch.float64)])
        weights = torch.tensor([[0.5, 2, 2, 2], [3, 3, 3, 3]], dtype=torch.float64)
        D = (p - y) / 2
        step = SimpleNamespace(labels=torch.arange(2), one_hot=y, D=D, method_gradient=weights * D)

        assert method.example_weights(step, weights).tolist() == [0.5, 3]


class TestState:
    def test_a_restored_method_goes_on_bit_for_bit(self):
        tested = UnderTest()
        for ids, lr in STEPS[:2]:
            tested.take(ids, lr)
        saved = copy.deepcopy((tested.method.state_dict(), tested.step.state_dict(), tested.model.state_dict()))
        restored = UnderTest()
        restored.method.V.network[0].weight.data.zero_()
        for each, state in zip((restored.method, restored.step, restored.model), saved, strict=True):
            each.load_state_dict(state)

        for ids, lr in STEPS[2:]:
            for found, expected in zip(restored.take(ids, lr), tested.take(ids, lr), strict=True):
                assert torch.equal(found, expected)
        assert_same(tested.model.state_dict(), restored.model.state_dict(), rtol=0, atol=0)
        assert_same(tested.method.state_dict(), restored.method.state_dict(), rtol=0, atol=0)


@st.composite
def rows(draw, largest_logit=40.0):
    """Probabilities of some examples, their labels as rows, and the labels."""
    n, classes = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    entries = st.floats(-largest_logit, largest_logit)
    logits = draw(st.lists(st.lists(entries, min_size=classes, max_size=classes), min_size=n, max_size=n))
    labels = torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    p = torch.tensor(logits, dtype=torch.float64).softmax(1)
    return p, F.one_hot(labels, classes).double(), labels


def weights_for(p, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(p.shape, generator=generator, dtype=torch.float64) * 10 + 1e-6


def of_cross_entropy(p, y):
    """The residuals of cross-entropy."""
    n = len(p)
    return residuals(SimpleNamespace(n=n, probabilities=p, one_hot=y, D=(p - y) / n))


several = settings(max_examples=100)


class TestInvariants:
    @several
    @given(rows(), st.integers(0, 2**31))
    def test_each_row_of_a_constrained_gradient_sums_to_zero(self, drawn, seed):
        p, y, _ = drawn
        r = of_cross_entropy(p, y)
        D_prime = manipulate(constrain(weights_for(p, seed), r, y), r, len(r))

        assert D_prime.sum(1).abs().max().item() < 1e-13

    @several
    @given(rows(largest_logit=2.5), st.lists(st.floats(0.01, 10), min_size=6, max_size=6))
    def test_equal_weights_for_all_classes_are_a_weight_for_the_example(self, drawn, v):
        p, y, _ = drawn
        assert (p <= 0.999).all()
        v = torch.tensor(v[: len(p)], dtype=torch.float64)[:, None]
        D = (p - y) / len(p)

        r = of_cross_entropy(p, y)
        omega = constrain(v.expand_as(p), r, y)

        torch.testing.assert_close(manipulate(omega, r, len(r)), v * D, rtol=1e-11, atol=1e-14)

    @several
    @given(rows(), st.integers(0, 2**31))
    def test_only_the_weight_at_the_label_is_set(self, drawn, seed):
        p, y, labels = drawn
        omega = weights_for(p, seed)
        constrained = constrain(omega, of_cross_entropy(p, y), y)
        elsewhere = y == 0

        assert torch.equal(constrained[elsewhere], omega[elsewhere])
        assert (constrained >= 0).all()
        # an average of the others' weights, or less where the clamp took probability away
        assert (constrained.gather(1, labels[:, None]) <= omega.amax(1, keepdim=True) * (1 + 1e-9)).all()

    @several
    @given(rows())
    def test_of_cross_entropy_they_are_the_clamped_probabilities_less_the_labels(self, drawn):
        p, y, _ = drawn

        torch.testing.assert_close(of_cross_entropy(p, y), p.clamp(max=0.999) - y, rtol=1e-12, atol=1e-12)

    @several
    @given(rows(), st.floats(0.1, 10), st.integers(0, 2**31))
    def test_the_gradient_is_linear_in_the_weights(self, drawn, factor, seed):
        p, y, _ = drawn
        r = of_cross_entropy(p, y)
        first, second = weights_for(p, seed), weights_for(p, seed + 1)

        def gradient(omega):
            return manipulate(constrain(omega, r, y), r, len(r))

        torch.testing.assert_close(
            gradient(first + factor * second),
            gradient(first) + factor * gradient(second),
            rtol=1e-9,
            atol=1e-12,
        )

    def test_the_constraint_passes_its_derivative_on_through_the_label_entry(self):
        p = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
        y = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
        v = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        g = torch.tensor([[2.0, 3.0, 5.0]], dtype=torch.float64)
        omega = constrain(v.expand(1, 3), p - y, y)

        (gradient,) = torch.autograd.grad(omega, v, grad_outputs=g)

        # 2 + 5 for the entries off the label, 3 (0.2 + 0.3) / (1 - 0.5) for the one at it
        assert gradient.item() == pytest.approx(10)
