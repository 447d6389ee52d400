import copy

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from reweight_core.testing.exact_run import (
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
from reweight_method_trusted.options import INSWConfig
from reweight_method_trusted.plugin import insw

DECAY = 0.01
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def under_test(config, strategy="jvp"):
    return ExactRun(insw.build(config, make_context(weight_decay=DECAY)), strategy, weight_decay=DECAY)


class Transcription:
    """A weight for each example that follows the clean loss after a virtual step, as published, by double backward."""

    def __init__(self, config):
        self.config = config
        self.model = make_network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
        self.w = [1.0] * SIZE
        self.train, self.meta = make_splits()
        self.floored = 0

    def take(self, ids, lr):
        x, y = batch(self.train, ids)
        x_meta, y_meta = batch(self.meta, range(META_SIZE))
        w = torch.tensor([self.w[i] for i in ids], dtype=torch.float64, requires_grad=True)

        virtual = copy.deepcopy(self.model)
        names, theta = zip(*virtual.named_parameters(), strict=True)
        loss = (w * F.cross_entropy(virtual(x), y, reduction="none")).mean()
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        theta_hat = {name: p - lr * g for name, p, g in zip(names, theta, gradients, strict=True)}
        meta_loss = F.cross_entropy(functional_call(virtual, theta_hat, (x_meta,)), y_meta)
        (gradient,) = torch.autograd.grad(meta_loss, w)

        for position, i in enumerate(ids):
            moved = self.w[i] / self.config.weight_divisor
            moved -= self.config.weight_lr * len(y) * gradient[position].item()
            self.floored += moved < 1e-5
            self.w[i] = max(moved, 1e-5)
        w = torch.tensor([self.w[i] for i in ids], dtype=torch.float64)
        w = w / w.sum() if self.config.normalise == "linear" else torch.softmax(w / self.config.temperature, 0)

        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        (w * F.cross_entropy(self.model(x), y, reduction="none")).sum().backward()
        self.optimizer.step()
        return w * len(y)


SETTINGS = {
    "linear": INSWConfig(weight_lr=0.5),
    "weights down to the floor": INSWConfig(weight_lr=60.0),
    "weights that decay": INSWConfig(weight_lr=2.0, weight_divisor=2.0),
    "softmax": INSWConfig(weight_lr=5.0, normalise="softmax", temperature=0.25),
}


@pytest.mark.parametrize("strategy", ["jvp", "double"])
@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)
def test_weights_and_network_are_those_of_the_paper_after_every_step(config, strategy):
    tested, reference = under_test(config, strategy), Transcription(config)
    for ids, lr in STEPS:
        torch.testing.assert_close(tested.take(ids, lr), reference.take(list(ids), lr), **EXACT)
        torch.testing.assert_close(tested.method.w, torch.tensor(reference.w, dtype=torch.float64), **EXACT)
    for found, expected in zip(tested.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert (reference.floored > 0) == (config.weight_lr == 60)


def test_a_weight_moves_by_how_far_a_step_on_its_example_improves_the_clean_loss():
    ids, lr = range(10), 0.25
    tested = under_test(INSWConfig(weight_lr=3.0))
    model = make_network()
    (x, y), (x_meta, y_meta) = batch(make_splits()[0], ids), batch(make_splits()[1], range(META_SIZE))
    theta = dict(model.named_parameters())
    losses = F.cross_entropy(model(x), y, reduction="none")
    own = [torch.autograd.grad(loss, list(theta.values()), retain_graph=True) for loss in losses]
    mean = [torch.stack(parts).mean(0) for parts in zip(*own, strict=True)]
    theta_hat = {name: (p - lr * g).detach().requires_grad_() for (name, p), g in zip(theta.items(), mean, strict=True)}
    meta_loss = F.cross_entropy(functional_call(model, theta_hat, (x_meta,)), y_meta)
    clean = torch.autograd.grad(meta_loss, list(theta_hat.values()))
    improvement = torch.stack([lr * sum((g * v).sum() for g, v in zip(each, clean, strict=True)) for each in own])
    assert (improvement < 0).any() and (improvement > 0).any()

    tested.take(ids, lr)

    torch.testing.assert_close(tested.method.w[:10], 1 + 3 * improvement, **EXACT)
    assert tested.method.w[10:].eq(1).all()


def test_from_weights_of_0_its_first_weights_are_those_of_l2rw():
    """Ren et al. (2018), algorithm 1: the rectified gradient with respect to weights of 0, normalised."""
    ids, lr = range(10), 0.25
    (x, y), (x_meta, y_meta) = batch(make_splits()[0], ids), batch(make_splits()[1], range(META_SIZE))
    model = make_network()
    names, theta = zip(*model.named_parameters(), strict=True)
    eps = torch.zeros(len(y), dtype=torch.float64, requires_grad=True)
    loss = (eps * F.cross_entropy(model(x), y, reduction="none")).sum()
    gradients = torch.autograd.grad(loss, theta, create_graph=True)
    theta_hat = {name: p - lr * g for name, p, g in zip(names, theta, gradients, strict=True)}
    meta_loss = F.cross_entropy(functional_call(model, theta_hat, (x_meta,)), y_meta)
    rectified = (-torch.autograd.grad(meta_loss, eps)[0]).clamp(min=0)
    assert 0 < rectified.count_nonzero() < len(y)

    # so large a rate that the floor of 1e-5, which L2RW has not, counts for nothing
    tested = under_test(INSWConfig(weight_lr=1e8))
    tested.method.w.zero_()

    torch.testing.assert_close(tested.take(ids, lr), rectified / rectified.sum() * len(y), rtol=1e-9, atol=1e-9)


def test_normalised_weights_have_a_mean_of_1():
    for config in SETTINGS.values():
        weights = under_test(config).take(range(10), 0.25)
        assert weights.mean().item() == pytest.approx(1)
        assert weights.std() > 0.01


def test_between_look_aheads_the_weights_stay():
    tested = under_test(INSWConfig(weight_lr=3.0))
    tested.take(*STEPS[0])
    before = tested.method.w.clone()
    step = tested.watcher.steps[0]
    step.looks_ahead = False

    weights = tested.method.generate_weights(step)

    assert torch.equal(tested.method.w, before)
    torch.testing.assert_close(weights, before[:10] / before[:10].mean(), **EXACT)
