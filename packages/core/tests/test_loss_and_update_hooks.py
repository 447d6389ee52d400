"""The training loss and the update as hooks, against textbook training in double precision."""

import copy

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reweight_core.data.feeder import Fed
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.stage import Stage
from reweight_core.engine.training_step import TrainingStep
from reweight_core.errors import UserError
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.testing.exact_run import CLASSES, META_SIZE, ConvNet, batch, make_examples, make_splits

MOMENTUM, DECAY = 0.9, 0.01
RATES = (0.25, 0.125, 0.0625, 0.25)
BATCHES = [list(range(8)), list(range(8, 16)), list(range(16, 24)), list(range(4, 12))]
EXACT = {"rtol": 1e-11, "atol": 1e-11}
PLAIN = Stage("train", 1, 0.0)
RADIUS = 0.25


def brier(labels, logits):
    """The squared distance of the probabilities from the label's row, (n,)."""
    return (logits.softmax(1) - F.one_hot(labels, CLASSES)).square().sum(1)


class Brier:
    """A loss for `--loss`."""

    @hookimpl
    def losses(self, batch, logits):
        return brier(batch.labels, logits)


class Halving:
    """Weights the first half of a batch by 2 and looks ahead, remembering the objective."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def generate_weights(self, step):
        self.seen.append(step)
        w = torch.ones_like(step.losses)
        w[: step.n // 2] = 2
        self.objective = step.meta_loss(w[:, None] * step.D).item()
        return w


class SAM:
    """Sharpness-aware minimisation: the gradient at the point of a ball around theta that the loss rises to."""

    @hookimpl(wrapper=True)
    def manipulate_update(self, step, gradients):
        gradients = yield
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        return step.gradients_at({n: step.parameters[n] + RADIUS * g / norm for n, g in gradients.items()})


class Net(ConvNet):
    """The network with dropout before its head."""

    def __init__(self, dropout):
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(dropout), self.head)


def with_hooks(method, loss=None, dropout=0.0, meta_losses=None, **components):
    hooks = MethodHooks(method, "method", components=components, loss=("loss", loss) if loss else None)
    torch.manual_seed(0)
    model = Net(dropout).double().train()
    train, meta = map(make_examples, make_splits())
    settings = OptimizerSettings(momentum=MOMENTUM, weight_decay=DECAY)
    extra = {"meta_losses": hooks.losses} if meta_losses == "training" else {}
    return TrainingStep(model, hooks, Choice("jvp"), train, meta, settings=settings, seed=3, **extra), model


def assert_same_network(found, expected):
    expected = expected.state_dict()
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}")


def take(step, ids, rate, stage=PLAIN):
    step.lr.fill_(rate)
    step.feed(Fed(torch.tensor(ids), torch.arange(META_SIZE)))
    step.run(len(ids), stage)


def textbook(model, gradient_of, batches=BATCHES[:4]):
    """Train a copy with SGD on the gradients that a function leaves; yield it after every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
    for k, ids in enumerate(batches):
        optimizer.param_groups[0]["lr"] = RATES[k % len(RATES)]
        optimizer.zero_grad()
        gradient_of(model, *batch(make_splits()[0], ids))
        optimizer.step()
        yield model


def test_the_update_follows_the_loss_that_is_chosen():
    step, model = with_hooks(object(), Brier())
    expected = textbook(copy.deepcopy(model), lambda net, x, y: brier(y, net(x)).mean().backward())
    for k, reference in enumerate(expected):
        take(step, BATCHES[k], RATES[k % len(RATES)])
        assert_same_network(model, reference)


def test_weights_multiply_the_loss_that_is_chosen_and_it_is_what_is_reported():
    method = Halving()
    step, model = with_hooks(method, Brier())
    before, (x, y) = copy.deepcopy(model), batch(make_splits()[0], BATCHES[0])
    take(step, BATCHES[0], RATES[0])
    losses = brier(y, before(x))
    seen = method.seen[0]
    torch.testing.assert_close(seen.losses, losses.detach(), **EXACT)
    torch.testing.assert_close(step.sums.train_loss.double(), losses.sum().detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(step.samples.tensors["loss"][BATCHES[0]].double(), losses.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("objective", [F.cross_entropy, brier])
def test_looking_ahead_takes_the_virtual_step_on_the_loss_and_evaluates_the_meta_loss(objective):
    method = Halving()
    step, model = with_hooks(method, Brier(), meta_losses="training" if objective is brier else None)
    moved = copy.deepcopy(model)
    x, y = batch(make_splits()[0], BATCHES[0])
    w = torch.ones(len(y), dtype=torch.float64)
    w[: len(y) // 2] = 2
    (w * brier(y, moved(x))).mean().backward()
    with torch.no_grad():
        for p in moved.parameters():
            p -= RATES[0] * p.grad
    clean, labels = batch(make_splits()[1], range(META_SIZE))
    logits = moved(clean)
    expected = brier(labels, logits).mean() if objective is brier else F.cross_entropy(logits, labels)
    take(step, BATCHES[0], RATES[0])
    assert method.objective == pytest.approx(expected.item(), rel=1e-10)


def test_an_update_can_be_changed_as_sharpness_aware_minimisation_does():
    def sam(net, x, y):
        at = copy.deepcopy(net)
        F.cross_entropy(at(x), y).backward()
        norm = torch.stack([p.grad.norm() for p in at.parameters()]).norm()
        there = copy.deepcopy(net)
        with torch.no_grad():
            for p, q in zip(there.parameters(), at.parameters(), strict=True):
                p += RADIUS * q.grad / norm
        F.cross_entropy(there(x), y).backward()
        with torch.no_grad():
            net(x)  # the running statistics follow the real pass alone
        for p, q in zip(net.parameters(), there.parameters(), strict=True):
            p.grad = q.grad

    step, model = with_hooks(object(), sam=SAM())
    for k, reference in enumerate(textbook(copy.deepcopy(model), sam)):
        take(step, BATCHES[k], RATES[k % len(RATES)])
        assert_same_network(model, reference)


class Smoothed:
    """Changes D beyond its weights: towards the uniform row."""

    @hookimpl
    def generate_weights(self, step):
        return torch.full_like(step.losses, 0.5)

    @hookimpl
    def manipulate_gradient(self, step, weights):
        return weights[:, None] * step.D + (step.one_hot - 1 / CLASSES) / (10 * step.n)


class GradientsElsewhere:
    def __init__(self, distance):
        self.distance = distance

    @hookimpl(wrapper=True)
    def manipulate_update(self, step, gradients):
        self.here = {n: g.clone() for n, g in gradients.items()}
        self.there = step.gradients_at({n: p + self.distance for n, p in step.parameters.items()})
        return (yield)


def test_the_gradients_at_the_networks_own_parameters_are_the_steps_own_under_dropout_too():
    seen = GradientsElsewhere(0.0)
    step, _ = with_hooks(Smoothed(), Brier(), dropout=0.5, seen=seen)
    take(step, BATCHES[0], RATES[0])
    for name, gradient in seen.here.items():
        torch.testing.assert_close(seen.there[name], gradient, **EXACT)


def test_elsewhere_the_weights_stay_and_what_else_the_method_changed_is_held_fixed():
    seen = GradientsElsewhere(0.1)
    step, model = with_hooks(Smoothed(), Brier(), seen=seen)
    moved, (x, y) = copy.deepcopy(model), batch(make_splits()[0], BATCHES[0])
    with torch.no_grad():
        for p in moved.parameters():
            p += 0.1
    logits = moved(x)
    shift = (F.one_hot(y, CLASSES).double() - 1 / CLASSES) / (10 * len(y))
    (0.5 * brier(y, logits).mean() + (shift * logits).sum()).backward()
    take(step, BATCHES[0], RATES[0])
    for name, p in moved.named_parameters():
        torch.testing.assert_close(seen.there[name], p.grad, **EXACT)


def test_a_plain_stage_is_plain_training_whatever_the_plugins_do():
    step, model = with_hooks(Halving(), Brier())
    plain = attrs.evolve(PLAIN, plain=True)
    expected = textbook(copy.deepcopy(model), lambda net, x, y: F.cross_entropy(net(x), y).backward())
    for k, reference in enumerate(expected):
        take(step, BATCHES[k], RATES[k % len(RATES)], plain)
        assert_same_network(model, reference)


class Counting:
    """Notes when it is told of a forward pass, and whether a loss was asked for before."""

    def __init__(self):
        self.told, self.asked = [], []

    @hookimpl
    def follow_forward(self, step):
        self.told.append((step.epoch, step.stage.name, tuple(step.logits.shape), len(self.asked)))

    @hookimpl
    def losses(self, batch, logits):
        self.asked.append(batch.source)
        return brier(batch.labels, logits)


def test_the_forward_pass_is_told_once_a_step_before_the_losses_with_epoch_and_stage():
    counting = Counting()
    step, _ = with_hooks(Halving(), counting, meta_losses="training", sam=SAM())
    step.lr.fill_(0.1)
    step.feed(Fed(torch.tensor(BATCHES[0]), torch.arange(META_SIZE)))
    step.run(8, Stage("second", 3, 0.1), epoch=7)
    assert counting.told == [(7, "second", (8, CLASSES), 0)]
    # its own batch, the meta batch, and its own again at the parameters of the component
    assert counting.asked == ["train", "meta", "train"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda batch, logits: None, "losses returned None"),
        (lambda batch, logits: brier(batch.labels, logits).mean(), "losses returned shape"),
        (lambda batch, logits: brier(batch.labels, logits).detach(), "do not depend on the logits"),
    ],
)
def test_losses_that_cannot_be_trained_on_are_refused(returned, message):
    class Wrong:
        @hookimpl
        def losses(self, batch, logits):
            return returned(batch, logits)

    step, _ = with_hooks(object(), Wrong())
    with pytest.raises(UserError, match=message):
        take(step, BATCHES[0], RATES[0])


def test_a_method_with_a_loss_of_its_own_takes_no_other():
    with pytest.raises(UserError, match=r"losses is implemented by .* only one can be used"):
        with_hooks(Counting(), Brier())


def test_an_update_without_all_gradients_is_refused():
    class Forgetful:
        @hookimpl
        def manipulate_update(self, step, gradients):
            return {}

    step, _ = with_hooks(Forgetful())
    with pytest.raises(UserError, match="manipulate_update must return a gradient for each"):
        take(step, BATCHES[0], RATES[0])
