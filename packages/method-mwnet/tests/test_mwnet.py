import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from reweight_core import WeightingOptions
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
from reweight_method_mwnet.plugin import plugin

EXACT_STRATEGIES = ("jvp", "double")

DECAY = 0.01
HIDDEN, WEIGHT_LR, WEIGHT_L2 = 9, 0.02, 0.03
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def make_method():
    context = make_context(weight_decay=DECAY)
    torch.manual_seed(1)
    return plugin.build(WeightingOptions(weight_lr=WEIGHT_LR, weight_l2=WEIGHT_L2, weight_hidden=HIDDEN), context)


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


def test_it_needs_a_meta_set_and_looks_ahead_with_the_network():
    assert plugin.needs_meta_set
    assert plugin.looks_ahead == "network"


def test_a_short_run_has_a_larger_rate_than_a_long_one():
    # Adam's first step has the size of its rate in every parameter
    moved = {}
    for steps in (1000, 40_000):
        torch.manual_seed(1)
        method = plugin.build(WeightingOptions(), make_context(steps=steps))
        before = method.V.phi[0].detach().clone()
        ExactRun(method).take(*STEPS[0])
        moved[steps] = (method.V.phi[0].detach() - before).abs().max().item()
    assert moved == {1000: pytest.approx(1e-2, rel=1e-3), 40_000: pytest.approx(1e-3, rel=1e-3)}
