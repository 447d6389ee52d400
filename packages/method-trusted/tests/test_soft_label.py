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
    SIZE,
    STEPS,
    ExactRun,
    batch,
    make_context,
    make_network,
    make_splits,
)
from reweight_method_trusted.options import SoftLabelConfig
from reweight_method_trusted.plugin import soft_label

DECAY = 0.01
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def under_test(config, strategy="jvp"):
    return ExactRun(soft_label.build(config, make_context(weight_decay=DECAY)), strategy, weight_decay=DECAY)


def projected(row):
    """A row after its step, cut off at 0 and divided by its sum."""
    kept = [max(entry, 0.0) for entry in row]
    return [entry / sum(kept) for entry in kept]


class Transcription:
    """Labels with parameters of their own, which follow the clean loss after a virtual step, by double backward."""

    def __init__(self, config):
        self.config, self.rows = config, config.soft_labels == "rows"
        self.model = make_network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
        self.train, self.meta = make_splits()
        labels = torch.from_numpy(self.train.labels)
        self.learned = torch.eye(CLASSES, dtype=torch.float64)[labels] if self.rows else torch.zeros(SIZE).double()
        # how often a bound was met
        self.bounded = 0

    def losses(self, logits, labels, learned):
        if self.rows:
            return -(learned * logits.log_softmax(1)).sum(1)
        smooth = -logits.log_softmax(1).mean(1)
        return (1 - learned) * F.cross_entropy(logits, labels, reduction="none") + learned * smooth

    def take(self, ids, lr):
        x, y = batch(self.train, ids)
        x_meta, y_meta = batch(self.meta, range(META_SIZE))
        learned = self.learned[ids].requires_grad_()

        virtual = copy.deepcopy(self.model)
        names, theta = zip(*virtual.named_parameters(), strict=True)
        loss = self.losses(virtual(x), y, learned).mean()
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        theta_hat = {name: p - lr * g for name, p, g in zip(names, theta, gradients, strict=True)}
        meta_loss = F.cross_entropy(functional_call(virtual, theta_hat, (x_meta,)), y_meta)
        (gradient,) = torch.autograd.grad(meta_loss, learned)

        change = self.config.label_lr * len(y) * gradient
        for position, i in enumerate(ids):
            if self.rows:
                # only what keeps the sum of the row counts
                row = self.learned[i] - change[position] + change[position].mean()
                self.bounded += (row < 0).sum().item()
                self.learned[i] = torch.tensor(projected(row.tolist()), dtype=torch.float64)
            else:
                moved = self.learned[i].item() - change[position].item()
                self.bounded += not 0 <= moved <= 1
                self.learned[i] = min(max(moved, 0.0), 1.0)

        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        self.losses(self.model(x), y, self.learned[ids]).mean().backward()
        self.optimizer.step()
        return self.learned[ids]


SETTINGS = {
    "smoothing": SoftLabelConfig(label_lr=2.0),
    "smoothing up to the bounds": SoftLabelConfig(label_lr=50.0),
    "rows": SoftLabelConfig(label_lr=2.0, soft_labels="rows"),
    "rows with one class left": SoftLabelConfig(label_lr=100.0, soft_labels="rows"),
}


@pytest.mark.parametrize("strategy", ["jvp", "double"])
@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)
def test_labels_and_network_are_those_of_the_transcription_after_every_step(config, strategy):
    tested, reference = under_test(config, strategy), Transcription(config)
    for ids, lr in STEPS:
        tested.take(ids, lr)
        reference.take(list(ids), lr)
        torch.testing.assert_close(tested.method.learned, reference.learned, **EXACT)
    for found, expected in zip(tested.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert reference.bounded
    assert (tested.method.learned > 0).sum() > 10


@pytest.mark.parametrize("soft_labels", ["smoothing", "rows"])
def test_without_a_step_of_the_labels_it_is_plain_training(soft_labels):
    tested = under_test(SoftLabelConfig(label_lr=0.0, soft_labels=soft_labels))
    plain = ExactRun(object(), weight_decay=DECAY)
    for ids, lr in STEPS:
        tested.take(ids, lr)
        plain.take(ids, lr)
    for found, expected in zip(tested.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


def test_rows_stay_distributions():
    tested = under_test(SoftLabelConfig(label_lr=1e4, soft_labels="rows"))
    for ids, lr in STEPS:
        tested.take(ids, lr)
        torch.testing.assert_close(tested.method.learned.sum(1), torch.ones(SIZE).double(), **EXACT)
        assert tested.method.learned.min() >= 0


@pytest.mark.parametrize("soft_labels", ["smoothing", "rows"])
def test_what_is_recorded_is_what_is_left_of_the_observed_label(soft_labels):
    tested = under_test(SoftLabelConfig(label_lr=5.0, soft_labels=soft_labels))
    tested.take(*STEPS[0])
    recorded = tested.step.samples.tensors["last_weight"][:10].double()
    learned = tested.method.learned[:10]
    labels = torch.from_numpy(make_splits()[0].labels[:10])
    at_label = learned.gather(1, labels[:, None]).squeeze(1) if soft_labels == "rows" else 1 - learned
    torch.testing.assert_close(recorded, at_label, rtol=1e-6, atol=1e-6)
    assert recorded.min() < 1


@pytest.mark.parametrize("soft_labels", ["smoothing", "rows"])
def test_trusted_examples_have_cross_entropy(soft_labels):
    tested = under_test(SoftLabelConfig(label_lr=5.0, soft_labels=soft_labels))
    tested.take(*STEPS[0])
    images, labels = batch(make_splits()[0], range(10))
    known = Batch(torch.arange(10), images, labels, trusted=torch.arange(10) < 4)
    logits = make_network()(images).detach()
    found, others = (tested.method.losses(b, logits) for b in (known, attrs.evolve(known, trusted=None)))
    plain = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(found[:4], plain[:4], **EXACT)
    assert torch.equal(found[4:], others[4:])
    assert (found[:4] - others[:4]).abs().max() > 1e-3


def test_wrong_labels_lose_more_than_right_ones():
    tested = under_test(SoftLabelConfig(label_lr=5.0, soft_labels="rows"))
    # the meta set is the batch, and the labels of the second half of the batch are wrong
    right = tested.train.labels[:META_SIZE].clone()
    tested.meta.images.copy_(tested.train.images[:META_SIZE])
    tested.meta.labels.copy_(right)
    observed = torch.cat([right[:3], (right[3:] + 1) % CLASSES])
    tested.train.labels[:META_SIZE] = observed
    tested.method.learned[:META_SIZE] = F.one_hot(observed, CLASSES).double()

    tested.take(range(META_SIZE), 0.25)

    kept = tested.method.learned[:META_SIZE].gather(1, observed[:, None])
    assert kept[:3].min() > kept[3:].max()
    assert (tested.method.learned[3:META_SIZE].gather(1, right[3:, None]) > 0).all()
