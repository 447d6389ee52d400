"""FSR against a literal transcription of Algorithm 1 with the details of the official code."""

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reweight_core import Dataset, Split, UserError, hookimpl
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Fed
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.training_step import TrainingStep
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.testing.exact_run import make_context, make_network
from reweight_method_fsr.fsr import default_dictionary_size, default_probe_size, normalise
from reweight_method_fsr.options import FSRConfig, MixUpConfig, RelabelConfig
from reweight_method_fsr.plugin import fsr, mixup, relabel
from reweight_method_fsr.pushers import PUSHERS

CLASSES, SIZE, DECAY, MOMENTUM, LR = 4, 34, 0.01, 0.9, 0.25
EXACT = {"rtol": 1e-10, "atol": 1e-10}
STEPS = [range(0, 10), range(10, 20), range(20, 28), range(5, 17), range(0, 30, 3)]
CONFIG = FSRConfig(dictionary_size=12, probe_size=8, warmup_epochs=0)
RELABEL = RelabelConfig(warmup_epochs=0)


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
    """Keeps the steps, their weights, and what the look-ahead gives for each example."""

    @hookimpl(wrapper=True)
    def generate_weights(self, step):
        self.step = step
        original = torch.autograd.grad

        def grad(outputs, inputs, *args, **kwargs):
            found = original(outputs, inputs, *args, **kwargs)
            if torch.is_tensor(inputs):
                (self.h,) = found
            return found

        torch.autograd.grad = grad
        try:
            self.weights = yield
        finally:
            torch.autograd.grad = original
        self.look = step.look
        return self.weights


class UnderTest:
    def __init__(self, config=CONFIG, mixes=False, relabels=False, held_out=None):
        self.model = make_network()
        dataset, device = make_dataset(), torch.device("cpu")
        self.examples = Examples(dataset.train, dataset, device, torch.float64)
        context = make_context(
            num_classes=CLASSES,
            train_size=SIZE,
            weight_decay=DECAY,
            model=self.model,
            train=self.examples,
            epochs=9,
            steps=36,
        )
        self.method = fsr.build(config, context)
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
            Choice("head"),
            self.examples,
            hooks.provide_meta_set(held_out),
            settings=OptimizerSettings(momentum=MOMENTUM, weight_decay=DECAY),
            seed=0,
            head="head",
        )
        self.step.lr.fill_(LR)

    def take(self, ids):
        self.step.feed(Fed(torch.tensor(list(ids)), torch.empty(0, dtype=torch.int64)))
        self.step.run(len(ids))
        return self.watcher.step


class Transcription:
    """State and step of Algorithm 1: every quantity by name, the look-ahead by double backward."""

    def __init__(self, config, relabels):
        self.model, self.config, self.relabels = make_network(), config, relabels
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
        moved = [p - 0.1 * (0.9 * m + g) for p, m, g in zip(head, buffers, gradients, strict=True)]
        self.head = weight, bias = moved

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
        self.h = h
        if self.config.negative_weights == "clip":
            omega = torch.stack([max(-value, torch.tensor(0.0).double()) for value in h])
        else:
            moved = [1 / b - value for value in h]
            omega = torch.stack([value - min(moved) + 1 / b for value in moved])
        self.omega = omega / (omega.sum() + 1e-5)

        # real step
        loss = (self.omega * L).sum()
        if self.relabels:
            A = self.A[ids]
            A = A * ((A**2).mean() + 1e-8).rsqrt()
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
    [{}, {"negative_weights": "shift", "reward_smoothing": 0.1}, {"probe": "separate"}],
    ids=["clip", "shift", "apart"],
)
def test_every_quantity_of_several_steps_is_that_of_the_transcription(changes, mixes, relabels):
    config = attrs.evolve(CONFIG, **changes)
    tested, expected = UnderTest(config, mixes, relabels), Transcription(config, relabels)
    for ids in STEPS:
        step = tested.take(ids)
        expected.take(step)
        # the real images of these ids, whatever MixUp made of them
        torch.testing.assert_close(step.original.inputs, tested.examples.batch(step.ids, None).inputs)
        assert torch.equal(step.inputs, step.original.inputs) != mixes
        torch.testing.assert_close(
            tested.watcher.look.parameters["head.weight"].detach(), expected.head[0].detach(), **EXACT
        )
        torch.testing.assert_close(
            tested.watcher.look.parameters["head.bias"].detach(), expected.head[1].detach(), **EXACT
        )
        torch.testing.assert_close(tested.watcher.h, expected.h, **EXACT)
        torch.testing.assert_close(tested.watcher.weights, len(ids) * expected.omega, **EXACT)
        torch.testing.assert_close(tested.method._scores, expected.scores, **EXACT)
        for found, wanted in zip(tested.model.state_dict().values(), expected.model.state_dict().values(), strict=True):
            torch.testing.assert_close(found, wanted, **EXACT)
    if relabels:
        torch.testing.assert_close(tested.components["relabel"]._average, expected.A, **EXACT)
    assert (tested.watcher.weights == 0).any() == (config.negative_weights == "clip")


def test_at_an_epochs_end_the_dictionary_takes_the_largest_margins_of_each_class():
    tested = UnderTest()
    for ids in STEPS:
        tested.take(ids)
    scores, labels = tested.method._scores.tolist(), tested.examples.labels.tolist()
    seen = sorted({i for ids in STEPS for i in ids})
    tested.method.finish_epoch(1)
    expected = set()
    for label in range(CLASSES):
        members = [i for i in seen if labels[i] == label]
        expected |= set(sorted(members, key=lambda i: -scores[i])[:3])
    assert set(tested.method.dictionary.chosen().tolist()) == expected
    (trusted,) = tested.method.trusted_examples().items()
    assert (trusted[0], set(trusted[1].tolist())) == ("dictionary", expected)


def test_before_epoch_e_all_weights_are_one_while_scores_are_gathered():
    tested = UnderTest(attrs.evolve(CONFIG, warmup_epochs=2))
    for epoch in (1, 2, 3):
        tested.take(range(10))
        assert torch.equal(tested.watcher.weights, torch.ones(10).double()) == (epoch <= 2)
        assert tested.method._scores[:10].abs().sum() > 0
        tested.method.finish_epoch(epoch)


def test_weights_of_tiny_gradients_sum_to_less_than_one():
    assert normalise(torch.full((10,), 1e-7)).sum() == pytest.approx(1e-6 / (1e-6 + 1e-5), rel=1e-4)
    assert normalise(torch.zeros(10)).eq(0).all()


@pytest.mark.parametrize("name", ["meta-margin", "negative-loss", "max-margin", "area-under-margin"])
def test_the_score_is_that_of_the_pusher_that_is_asked_for(name):
    tested = UnderTest(attrs.evolve(CONFIG, pusher=name))
    step = tested.take(range(10))
    of_training = tested.watcher.look.logits[len(step.meta.labels) :].detach()
    expected = PUSHERS[name](step, F.cross_entropy(of_training, step.labels, reduction="none"))
    torch.testing.assert_close(tested.method._scores[:10], 0.1 * expected, **EXACT)


def test_forgetting_events_are_the_score_where_they_are_asked_for():
    tested = UnderTest(attrs.evolve(CONFIG, pusher="forgetting-events"))
    step = tested.take(range(10))
    wrong = step.logits.argmax(1) != step.labels
    torch.testing.assert_close(tested.method._scores[:10], -0.1 * wrong.double(), **EXACT)
    assert wrong.any()


def test_a_given_reward_set_is_what_probe_batches_come_from_all_of_it():
    dataset = make_dataset()
    # of the classes 9, 1, 0 and 5 examples
    chosen = [i for label, count in ((0, 9), (1, 1), (3, 5)) for i in range(label, SIZE, CLASSES)[:count]]
    given = dataset.train.take(np.array(chosen))
    given.images[:, 0, 4, 4] = 77
    held_out = Examples(given, dataset, torch.device("cpu"), torch.float64)
    tested = UnderTest(attrs.evolve(CONFIG, reward="given"), held_out=held_out)
    assert sorted(tested.method.dictionary.chosen().tolist()) == list(range(len(given)))
    step = tested.take(range(10))
    marked = (77 - 127) / 60
    assert (step.meta.inputs[:, 0, 4, 4] == marked).all()
    assert not (step.inputs[:, 0, 4, 4] == marked).any()
    tested.method.finish_epoch(1)
    # what was given is no finding of the method's
    assert not tested.method.trusted_examples()
    assert sorted(tested.method.dictionary.chosen().tolist()) == list(range(len(given)))


def test_a_warm_up_as_long_as_the_run_is_warned_of():
    with pytest.warns(UserWarning, match="--warmup-epochs 9: all 9 epochs of the run have equal weights"):
        UnderTest(attrs.evolve(CONFIG, warmup_epochs=9))


def test_a_dictionary_of_most_of_the_training_set_is_warned_of():
    with pytest.warns(UserWarning, match=r"--dictionary-size 2000: the dictionary holds 100% of the training examples"):
        UnderTest(attrs.evolve(CONFIG, dictionary_size=2000))


# 50,000 images of CIFAR, 1,338 digits, and no images to speak of
@pytest.mark.parametrize(
    ("train_size", "dictionary_size", "probe_size"),
    [(50_000, 2000, 200), (13_334, 2000, 200), (13_333, 1999, 200), (1338, 200, 100), (40, 6, 3), (5, 1, 1)],
)
def test_small_training_sets_have_a_small_dictionary_and_small_probe_batches(train_size, dictionary_size, probe_size):
    assert default_dictionary_size(train_size) == dictionary_size
    assert default_probe_size(dictionary_size) == probe_size


def test_sizes_that_are_not_given_are_those_for_the_training_set():
    tested = UnderTest(FSRConfig(warmup_epochs=0))
    # 15 % of 34 examples are 5
    assert len(tested.method.dictionary.chosen()) == 5
    assert len(tested.take(range(10)).meta.labels) == 2
    given = UnderTest(FSRConfig(warmup_epochs=0, dictionary_size=12))
    assert len(given.take(range(10)).meta.labels) == 6


def test_a_reward_set_that_is_asked_for_must_be_given():
    with pytest.raises(UserError, match=r"--reward given: .* --meta-size"):
        UnderTest(attrs.evolve(CONFIG, reward="given"))
