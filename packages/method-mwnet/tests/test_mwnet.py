import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from reweight_core import WeightingNetwork
from reweight_core.testing.exact_run import (
    META_SIZE,
    MOMENTUM,
    STEPS,
    ExactRun,
    batch,
    make_context,
    make_network,
    make_splits,
)
from reweight_method_mwnet import MWNetConfig, plugin

EXACT_STRATEGIES = ("jvp", "double")

DECAY = 0.01
HIDDEN, WEIGHT_LR, WEIGHT_L2 = 9, 0.02, 0.03
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def make_method():
    context = make_context(weight_decay=DECAY)
    torch.manual_seed(1)
    return plugin.build(MWNetConfig(weight_lr=WEIGHT_LR, weight_l2=WEIGHT_L2, weight_hidden=HIDDEN), context)


def under_test(strategy="jvp"):
    return ExactRun(make_method(), strategy, weight_decay=DECAY)


class Transcription:
    """Algorithm 1 as published: a virtual copy of the network, weights on losses, a graph of the gradient."""

    def __init__(self, phi):
        self.model = make_network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
        self.V = nn.Sequential(nn.Linear(1, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1), nn.Sigmoid()).double()
        with torch.no_grad():
            for own, given_parameter in zip(self.V.parameters(), phi, strict=True):
                own.copy_(given_parameter)
        self.V_optimizer = torch.optim.Adam(self.V.parameters(), lr=WEIGHT_LR, weight_decay=WEIGHT_L2)
        self.train, self.meta = make_splits()

    def take(self, ids, lr):
        x, y = batch(self.train, ids)
        x_meta, y_meta = batch(self.meta, range(META_SIZE))

        virtual = copy.deepcopy(self.model)
        cost = F.cross_entropy(virtual(x), y, reduction="none")
        v = self.V(cost.detach().reshape(-1, 1))
        loss = torch.sum(cost.reshape(-1, 1) * v) / len(cost)
        names, theta = zip(*virtual.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        theta_hat = {name: p - lr * g for name, p, g in zip(names, theta, gradients, strict=True)}

        meta_loss = F.cross_entropy(functional_call(virtual, theta_hat, (x_meta,)), y_meta)
        self.V_optimizer.zero_grad()
        meta_loss.backward()
        self.V_optimizer.step()

        cost = F.cross_entropy(self.model(x), y, reduction="none")
        with torch.no_grad():
            w = self.V(cost.reshape(-1, 1))
        loss = torch.sum(cost.reshape(-1, 1) * w) / len(cost)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return w.squeeze(1)


def assert_same(found, expected, **precision):
    found, expected = dict(found), dict(expected)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **precision, msg=lambda m, n=name: f"{n}: {m}")


class TestAgainstTheAlgorithm:
    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    def test_weights_weighting_network_and_classifier_after_every_step(self, strategy):
        tested = under_test(strategy)
        reference = Transcription(tested.method.V.phi)
        for ids, lr in STEPS:
            torch.testing.assert_close(tested.take(ids, lr), reference.take(ids, lr), **EXACT)
            assert_same(tested.method.V.network.named_parameters(), reference.V.named_parameters(), **EXACT)
            assert_same(tested.model.state_dict(), reference.model.state_dict(), **EXACT)

    def test_strategies_agree(self):
        runs = [under_test(strategy) for strategy in EXACT_STRATEGIES]
        for ids, lr in STEPS:
            torch.testing.assert_close(*(run.take(ids, lr) for run in runs), **EXACT)
        assert_same(*(run.model.state_dict() for run in runs), **EXACT)
        assert_same(*(run.method.state_dict() for run in runs), **EXACT)

    def test_the_real_step_uses_the_weighting_network_after_its_own_step(self):
        tested = under_test()
        ids, lr = STEPS[0]
        x, y = batch(make_splits()[0], ids)
        losses = F.cross_entropy(make_network()(x), y, reduction="none").detach()
        before = tested.method.V(losses).detach()

        weights = tested.take(ids, lr)

        torch.testing.assert_close(weights, tested.method.V(losses).detach(), **EXACT)
        assert (weights - before).abs().max() > 1e-4


class TestState:
    def test_a_restored_method_goes_on_bit_for_bit(self):
        tested = under_test()
        for ids, lr in STEPS[:2]:
            tested.take(ids, lr)
        saved = copy.deepcopy((tested.method.state_dict(), tested.step.state_dict(), tested.model.state_dict()))
        restored = under_test()
        restored.method.V.network[0].weight.data.zero_()
        for each, state in zip((restored.method, restored.step, restored.model), saved, strict=True):
            each.load_state_dict(state)

        for ids, lr in STEPS[2:]:
            assert torch.equal(tested.take(ids, lr), restored.take(ids, lr))
        assert_same(tested.model.state_dict(), restored.model.state_dict(), rtol=0, atol=0)
        assert_same(tested.method.state_dict(), restored.method.state_dict(), rtol=0, atol=0)

    def test_holds_tensors_alone(self):
        tested = under_test()
        tested.take(*STEPS[0])

        state = tested.method.state_dict()
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        assert sum(name.startswith("optimizer.") for name in state) == 3 * len(tested.method.V.phi)


class TestWeightingNetwork:
    @staticmethod
    def make(dtype=torch.float64):
        context = make_context(dtype=dtype)
        torch.manual_seed(4)
        return WeightingNetwork(context, lr=0.01, hidden=20)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(0, 30), min_size=1, max_size=20), st.sampled_from([torch.float32, torch.float64]))
    def test_weights_lie_between_zero_and_one(self, losses, dtype):
        weights = self.make(dtype)(torch.tensor(losses, dtype=dtype))

        assert weights.shape == (len(losses),)
        assert weights.dtype == dtype
        assert ((weights > 0) & (weights < 1)).all()

    def test_an_examples_weight_depends_on_its_own_loss_alone(self):
        V, losses = self.make(), torch.linspace(0, 5, 7, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(V, losses)

        assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
        assert jacobian.diagonal().ne(0).any()

    def test_descending_follows_the_gradients_given(self):
        V = self.make()
        before = [p.detach().clone() for p in V.phi]
        V.descend([torch.ones_like(p) for p in V.phi])

        for p, old in zip(V.phi, before, strict=True):
            # the first step of Adam has the size of its rate, against the sign of the gradient
            torch.testing.assert_close(old - p, torch.full_like(p, 0.01), rtol=1e-6, atol=0)

    def test_defaults_are_those_of_the_official_code(self):
        config = MWNetConfig()

        assert (config.weight_lr, config.weight_l2, config.weight_hidden) == (1e-3, 1e-4, 100)


def test_it_needs_a_meta_set():
    assert plugin.needs_meta_set
