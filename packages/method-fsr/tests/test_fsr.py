"""FSR against a literal transcription of Algorithm 1 with the details of the official code."""

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reweight_method_fsr import FSRConfig, MixUpConfig, RelabelConfig, mixup, plugin, relabel
from reweight_method_fsr.fsr import normalise
from torch import nn

from reweight_core import Context, Dataset, Split, UserError, hookimpl
from reweight_core.engine import TrainingStep
from reweight_core.examples import Examples
from reweight_core.lookahead import STRATEGIES
from reweight_core.method_hooks import MethodHooks
from reweight_core.optimizers import OptimizerSettings

CLASSES, SIZE, DECAY, MOMENTUM, LR = 4, 34, 0.01, 0.9, 0.25
EXACT = {"rtol": 1e-10, "atol": 1e-10}
STEPS = [range(0, 10), range(10, 20), range(20, 28), range(5, 17), range(0, 30, 3)]
CONFIG = FSRConfig(dictionary_size=12, probe_size=8, warmup_epochs=0)
RELABEL = RelabelConfig(warmup_epochs=0)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv2, self.norm2 = nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, CLASSES)

    def features(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x))).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


def make_dataset():
    rng = np.random.RandomState(2)
    labels = np.arange(SIZE) % CLASSES
    images = rng.randint(256, size=(SIZE, 3, 5, 5)).astype(np.uint8)
    # something to learn: each class is bright in another place
    for image, label in zip(images, labels, strict=True):
        image[:, label, label] = 255
    split = Split(images, labels.astype(np.int64))
    return Dataset(train=split, test=split, classes=tuple("abcd"), mean=(127.0,) * 3, std=(60.0,) * 3)


class Watcher:
    """Keeps the steps and their weights."""

    @hookimpl(wrapper=True)
    def generate_weights(self, step):
        self.step = step
        self.weights = yield
        return self.weights


class UnderTest:
    def __init__(self, config=CONFIG, mixes=False, relabels=False):
        torch.manual_seed(0)
        self.model = ConvNet().double().train()
        dataset, device = make_dataset(), torch.device("cpu")
        self.examples = Examples(dataset.train, dataset, device, torch.float64)
        context = Context(CLASSES, SIZE, 10, DECAY, device, torch.float64, self.model, self.examples)
        self.method = plugin.build(config, context)
        self.components = {}
        if mixes:
            self.components["mixup"] = mixup.build(MixUpConfig(), context)
        if relabels:
            self.components["relabel"] = relabel.build(RELABEL, context)
        self.watcher = Watcher()
        hooks = MethodHooks(self.method, "fsr", [self.watcher], self.components)
        self.step = TrainingStep(
            self.model,
            hooks,
            STRATEGIES["head"],
            self.examples,
            hooks.provide_meta_set(None),
            settings=OptimizerSettings(momentum=MOMENTUM, weight_decay=DECAY),
            seed=0,
            head="head",
        )
        self.step.lr.fill_(LR)

    def take(self, ids):
        self.step.feed(torch.tensor(list(ids)), torch.empty(0, dtype=torch.int64))
        self.step.run(len(ids))
        return self.watcher.step


class Transcription:
    """State and step of Algorithm 1: every quantity by name, the look-ahead by double backward."""

    def __init__(self, config, relabels):
        torch.manual_seed(0)
        self.model, self.config, self.relabels = ConvNet().double().train(), config, relabels
        self.buffers = {name: torch.zeros_like(p) for name, p in self.model.named_parameters()}
        self.scores = torch.zeros(SIZE, dtype=torch.float64)
        self.A = torch.zeros(SIZE, CLASSES, dtype=torch.float64)

    def take(self, step):
        ids, y, b = step.ids, step.labels, len(step.ids)
        targets = step.inputs.new_zeros(b, CLASSES)
        targets[torch.arange(b), y] = 1.0
        if step._batch.targets is not None:
            targets = step._batch.targets
        statistics = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        z = self.model.features(step.inputs)
        after_real_pass = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        l = self.model.head(z)  # noqa: E741  the paper's letter
        L = -(targets * l.log_softmax(1)).sum(1)

        # virtual step of the head: momentum and weight decay enter
        omega_o = torch.full((b,), 1 / b, dtype=torch.float64, requires_grad=True)
        head = [self.model.head.weight, self.model.head.bias]
        virtual_logits = z.detach() @ head[0].T + head[1]
        virtual_loss = (omega_o * -(targets * virtual_logits.log_softmax(1)).sum(1)).sum()
        virtual_loss = virtual_loss + DECAY / 2 * sum((p**2).sum() for p in head)
        gradients = torch.autograd.grad(virtual_loss, head, create_graph=True)
        buffers = [self.buffers["head.weight"], self.buffers["head.bias"]]
        weight, bias = (p - 0.1 * (0.9 * m + g) for p, m, g in zip(head, buffers, gradients, strict=True))

        # one meta forward of [probe; unmixed batch], whose BatchNorm statistics are joint
        probe, q = step.meta, len(step.meta.labels)
        if self.config.probe == "joint":
            joint = self.model.features(torch.cat([probe.inputs, step.original.inputs])).detach() @ weight.T + bias
            probe_logits, M = joint[:q], F.cross_entropy(joint[q:], y, reduction="none")
        else:
            probe_logits = self.model.features(probe.inputs).detach() @ weight.T + bias
            M = F.cross_entropy(z.detach() @ weight.T + bias, y, reduction="none")
        s = self.config.reward_smoothing
        soft = (1 - s) * F.one_hot(probe.labels, CLASSES).double() + s / CLASSES
        L_R = -(soft * probe_logits.log_softmax(1)).sum(1).mean() + DECAY / 2 * ((weight**2).sum() + (bias**2).sum())
        (h,) = torch.autograd.grad(L_R, omega_o)
        if self.config.weights == "clip":
            omega = torch.stack([max(-value, torch.tensor(0.0).double()) for value in h])
        else:
            moved = [1 / b - value for value in h]
            omega = torch.stack([value - min(moved) + 1 / b for value in moved])
        self.omega = omega / (omega.sum() + 1e-5)

        # real step
        loss = (self.omega * L).sum()
        if self.relabels:
            A = self.A[ids]
            A = A / ((A**2).mean().sqrt() + 1e-8)
            pseudo = torch.softmax(A / RELABEL.temperature, 1)
            loss = loss + RELABEL.multiplier * -(pseudo * l.log_softmax(1)).sum(1).mean()
            self.A[ids] = RELABEL.decay * A + (1 - RELABEL.decay) * l.detach()
        names, parameters = zip(*self.model.named_parameters(), strict=True)
        for name, p, g in zip(names, parameters, torch.autograd.grad(loss, parameters), strict=True):
            self.buffers[name] = MOMENTUM * self.buffers[name] + g + DECAY * p.detach()
            p.data -= LR * self.buffers[name]
        for name, buffer in self.model.named_buffers():
            assert not torch.equal(buffer, statistics[name])
            buffer.copy_(after_real_pass[name])
        self.scores[ids] = 0.9 * self.scores[ids] + 0.1 * (L.detach() - M.detach())


@pytest.mark.parametrize("relabels", [False, True])
@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"weights": "shift", "reward_smoothing": 0.1}, {"probe": "separate"}],
    ids=["clip", "shift", "apart"],
)
def test_every_quantity_of_several_steps_is_that_of_the_transcription(changes, mixes, relabels):
    config = attrs.evolve(CONFIG, **changes)
    tested, expected = UnderTest(config, mixes, relabels), Transcription(config, relabels)
    for ids in STEPS:
        step = tested.take(ids)
        expected.take(step)
        torch.testing.assert_close(tested.watcher.weights, len(ids) * expected.omega, **EXACT)
        torch.testing.assert_close(tested.method._scores, expected.scores, **EXACT)
        for found, wanted in zip(tested.model.state_dict().values(), expected.model.state_dict().values(), strict=True):
            torch.testing.assert_close(found, wanted, **EXACT)
    if relabels:
        torch.testing.assert_close(tested.components["relabel"]._average, expected.A, **EXACT)
    assert (tested.watcher.weights == 0).any() == (config.weights == "clip")


def test_at_an_epochs_end_the_dictionary_takes_the_largest_margins_of_each_class():
    tested = UnderTest()
    for ids in STEPS:
        tested.take(ids)
    scores, labels = tested.method._scores.tolist(), tested.examples.labels.tolist()
    seen = sorted({i for ids in STEPS for i in ids})
    corrupted = torch.arange(SIZE) % 3 == 0
    figures = tested.method.finish_epoch(1, corrupted)
    expected = set()
    for label in range(CLASSES):
        members = [i for i in seen if labels[i] == label]
        expected |= set(sorted(members, key=lambda i: -scores[i])[:3])
    assert set(tested.method.dictionary.chosen().tolist()) == expected
    assert figures["dictionary_purity"] == pytest.approx(sum(i % 3 != 0 for i in expected) / 12)
    assert tested.method.finish_epoch(2, None) == {}


def test_before_epoch_e_all_weights_are_one_while_scores_are_gathered():
    tested = UnderTest(attrs.evolve(CONFIG, warmup_epochs=2))
    for epoch in (1, 2, 3):
        tested.take(range(10))
        assert torch.equal(tested.watcher.weights, torch.ones(10).double()) == (epoch <= 2)
        assert tested.method._scores[:10].abs().sum() > 0
        tested.method.finish_epoch(epoch, None)


def test_weights_of_tiny_gradients_sum_to_less_than_one():
    assert normalise(torch.full((10,), 1e-7)).sum() == pytest.approx(1e-6 / (1e-6 + 1e-5), rel=1e-4)
    assert normalise(torch.zeros(10)).eq(0).all()


def test_a_reward_set_that_is_asked_for_must_be_given():
    with pytest.raises(UserError, match=r"--reward given: .* --meta-size"):
        UnderTest(attrs.evolve(CONFIG, reward="given"))
