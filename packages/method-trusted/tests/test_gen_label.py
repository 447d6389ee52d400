import copy

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from reweight_core import Batch
from reweight_core.testing.exact_run import (
    CLASSES,
    META_SIZE,
    MOMENTUM,
    STEPS,
    ExactRun,
    batch,
    make_context,
    make_network,
    make_splits,
)
from reweight_method_trusted.gen_label import softmax_pullback
from reweight_method_trusted.options import GenLabelConfig
from reweight_method_trusted.plugin import gen_label

DECAY = 0.01
EXACT = {"rtol": 1e-9, "atol": 1e-9}
CONFIG = GenLabelConfig(label_lr=40.0, label_scale=2.0, virtual_lr=0.75, entropy=0.5, warmup_epochs=0)


def under_test(config, strategy="jvp"):
    return ExactRun(gen_label.build(config, make_context(weight_decay=DECAY)), strategy, weight_decay=DECAY)


class Transcription:
    """The label distributions follow the clean loss after a step of plain SGD on them, by double backward."""

    def __init__(self, config):
        self.config = config
        self.model = make_network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
        self.train, self.meta = make_splits()
        self.Y = config.label_scale * torch.eye(CLASSES, dtype=torch.float64)[torch.from_numpy(self.train.labels)]

    @staticmethod
    def divergence(logits, Y):
        """The mean over the batch of KL(p || softmax(Y)), over C."""
        p, target = logits.softmax(1), Y.softmax(1)
        return (p * (p / target).log()).sum(1).mean() / CLASSES

    def take(self, ids, lr):
        x, _ = batch(self.train, ids)
        x_meta, y_meta = batch(self.meta, range(META_SIZE))
        Y = self.Y[ids].requires_grad_()

        virtual = copy.deepcopy(self.model)
        names, theta = zip(*virtual.named_parameters(), strict=True)
        gradients = torch.autograd.grad(self.divergence(virtual(x), Y), theta, create_graph=True)
        theta_hat = {name: p - self.config.virtual_lr * g for name, p, g in zip(names, theta, gradients, strict=True)}
        meta_loss = F.cross_entropy(functional_call(virtual, theta_hat, (x_meta,)), y_meta)
        (gradient,) = torch.autograd.grad(meta_loss, Y)
        self.Y[ids] = Y.detach() - self.config.label_lr * len(ids) * gradient

        logits = self.model(x)
        p = logits.softmax(1)
        loss = self.divergence(logits, self.Y[ids]) - self.config.entropy * (p * p.log()).sum(1).mean() / CLASSES
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


@pytest.mark.parametrize("strategy", ["jvp", "double"])
@pytest.mark.parametrize("entropy", [0.0, 0.5, 1.0])
def test_label_logits_and_network_are_those_of_the_paper_after_every_step(entropy, strategy):
    config = GenLabelConfig(label_lr=40.0, label_scale=2.0, virtual_lr=0.75, entropy=entropy, warmup_epochs=0)
    tested, reference = under_test(config, strategy), Transcription(config)
    start = reference.Y.clone()
    for ids, lr in STEPS:
        tested.take(ids, lr)
        reference.take(list(ids), lr)
        torch.testing.assert_close(tested.method.Y, reference.Y, **EXACT)
    for found, expected in zip(tested.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert (reference.Y - start).abs().max() > 0.1


def test_while_it_warms_up_it_is_plain_training():
    tested = under_test(GenLabelConfig(warmup_epochs=1))
    plain = ExactRun(object(), weight_decay=DECAY)
    before = tested.method.Y.clone()
    for ids, lr in STEPS:
        tested.take(ids, lr)
        plain.take(ids, lr)
    for found, expected in zip(tested.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert torch.equal(tested.method.Y, before)


def test_the_labels_are_learned_from_a_third_of_the_run_on():
    assert gen_label.build(GenLabelConfig(), make_context(epochs=90)).warmup_epochs == 30


def test_a_step_size_of_0_leaves_the_labels():
    tested = under_test(GenLabelConfig(label_lr=0.0, warmup_epochs=0))
    before = tested.method.Y.clone()
    tested.take(*STEPS[0])
    assert torch.equal(tested.method.Y, before)


def test_a_network_that_predicts_its_labels_stays():
    method = gen_label.build(GenLabelConfig(entropy=0.0, label_lr=0.0, warmup_epochs=0), make_context())
    tested = ExactRun(method, weight_decay=0.0)
    ids, lr = STEPS[0]
    x, _ = batch(make_splits()[0], ids)
    method.Y[:10] = make_network()(x).detach() + 3
    tested.take(ids, lr)
    assert tested.watcher.gradients[0].abs().max() < 1e-15


def test_what_is_recorded_is_the_label_distribution_at_the_observed_label():
    tested = under_test(CONFIG)
    tested.take(*STEPS[0])
    recorded = tested.step.samples.tensors["last_weight"][:10].double()
    labels = torch.from_numpy(make_splits()[0].labels[:10])
    expected = torch.stack([row[y] for row, y in zip(tested.method.Y[:10].softmax(1), labels, strict=True)])
    torch.testing.assert_close(recorded, expected, rtol=1e-6, atol=1e-6)


def test_trusted_examples_have_cross_entropy_at_the_scale_of_the_others():
    tested = under_test(CONFIG)
    tested.take(*STEPS[0])
    images, labels = batch(make_splits()[0], range(10))
    known = Batch(torch.arange(10), images, labels, trusted=torch.arange(10) < 4)
    logits = make_network()(images).detach()
    found, others = (tested.method.losses(b, logits) for b in (known, attrs.evolve(known, trusted=None)))
    plain = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(found[:4], plain[:4] / CLASSES, **EXACT)
    assert torch.equal(found[4:], others[4:])
    assert (found[:4] - others[:4]).abs().max() > 1e-3


def test_the_gradient_through_a_softmax_is_autograds():
    torch.manual_seed(0)
    logits, a = torch.randn(2, 5, 3, dtype=torch.float64)
    logits.requires_grad_()
    (expected,) = torch.autograd.grad((logits.softmax(1) * a).sum(), logits)
    torch.testing.assert_close(softmax_pullback(logits.detach().softmax(1), a), expected)


def test_certain_predictions_give_a_finite_gradient():
    tested = under_test(CONFIG)
    tested.model.logit_scale = 1e4
    tested.take(*STEPS[0])
    assert tested.watcher.gradients[0].isfinite().all()
    assert tested.method.Y.isfinite().all()
