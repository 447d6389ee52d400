import copy
import itertools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reweight_core.engine.head import find_head
from reweight_core.engine.lookahead import STRATEGIES
from reweight_core.errors import UserError
from reweight_core.training.preflight import rehearse, rehearse_shares

IMAGES = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A small network that ends in what `output` makes of its logits."""

    def __init__(self, output=lambda self, x: x):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        self.linear = nn.Linear(16, 3)
        self.output = output

    def forward(self, x):
        return self.output(self, self.linear(self.body(x)))


class Attention(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=dropout, batch_first=True)
        self.encoder, self.linear = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.encoder(x[:, 0]).mean(1))


@pytest.mark.parametrize("strategy", [None, *STRATEGIES.values()])
def test_it_leaves_no_trace(strategy):
    model = Net()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    rehearse(model, IMAGES, 3, strategy, find_head(model, IMAGES))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_buffer_that_is_replaced_and_gradients_that_are_there_come_back():
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return super().forward(x)

    model = Counting()
    buffer, gradients = model.count, [torch.full_like(p, 2.0) for p in model.parameters()]
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        p.grad = gradient.clone()
    rehearse(model, IMAGES, 3, STRATEGIES["double"])
    assert model.count is buffer
    assert model.count == 0
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(model.parameters(), gradients, strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES.values())
def test_attention_works_with_every_look_ahead(strategy):
    model = Attention(dropout=0.0)
    with pytest.warns(UserWarning, match="attention runs on its plain implementation"):
        rehearse(model, IMAGES, 3, strategy, find_head(model, IMAGES))


def test_nothing_is_said_of_attention_where_there_is_none(recwarn):
    rehearse(Net(), IMAGES, 3, STRATEGIES["jvp"])
    rehearse(Attention(dropout=0.0), IMAGES, 3, None)
    assert not [w for w in recwarn if "attention" in str(w.message)]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (lambda net, x: [x.tolist()] if net.training else x, "must return logits, a tensor .n, C., .* returns list"),
        (lambda net, x: x[:, :2], r"but returns \(2, 2\)"),
        (lambda net, x: F.alpha_dropout(x, 0.5, net.training), "draws random numbers where they cannot be repeated"),
        (lambda net, x: F.rrelu(x - 9, training=net.training), "draws random numbers where they cannot be repeated"),
        (lambda net, x: x.detach(), "the model cannot be trained: RuntimeError"),
        (lambda net, x: net.missing, "the model cannot be trained: AttributeError"),
    ],
)
def test_what_would_fail_in_training_is_found_before(output, text):
    with pytest.raises(UserError, match=text) as caught:
        rehearse(Net(output), IMAGES, 3, None)
    assert "\n" not in str(caught.value)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.linear = nn.LSTM(4, 5, 2, batch_first=True, dropout=0.2), nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(self.body(x[:, 0])[0][:, -1])


GLOBAL_DRAWS = {
    "attention": lambda: Attention(dropout=0.1),
    "recurrent": Recurrent,
    "python": lambda: Net(lambda net, x: x * random.random()),
    "numpy": lambda: Net(lambda net, x: x + float(np.random.rand())),
}


def global_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("build", GLOBAL_DRAWS.values(), ids=GLOBAL_DRAWS)
@pytest.mark.parametrize(("strategy", "draws"), [(STRATEGIES["jvp"], "repeated"), (None, "repeated"), (None, "kept")])
def test_draws_of_the_global_generators_are_refused_where_they_are_needed_again(build, strategy, draws):
    model, states = build(), global_states()
    with pytest.raises(
        UserError, match=r"where they cannot be repeated .* set that dropout to 0|NumPy, which cannot be"
    ):
        rehearse(model, IMAGES, 3, strategy, draws=draws)
    assert global_states() == states


@pytest.mark.parametrize("build", GLOBAL_DRAWS.values(), ids=GLOBAL_DRAWS)
def test_draws_of_the_global_generators_are_the_loops_where_nothing_is_repeated(build):
    model, states = build(), global_states()
    rehearse(model, IMAGES, 3, None, draws="free")
    assert global_states() == states


def counting(output):
    """A network whose output knows how often it was computed."""
    steps = itertools.count(1)
    return lambda: Net(lambda net, x: output(x, next(steps)))


UNREPEATABLE = {
    "own generator": counting(lambda x, step: x + torch.from_numpy(np.random.default_rng(step).random((2, 3))).float()),
    "schedule": counting(lambda x, step: x * step),
    "more draws each time": counting(lambda x, step: x + sum(torch.rand(3) for _ in range(step))),
    "fewer draws each time": counting(lambda x, step: x + sum(torch.rand(3) for _ in range(9 - step))),
}


@pytest.mark.parametrize("build", UNREPEATABLE.values(), ids=UNREPEATABLE)
def test_a_network_that_does_not_compute_the_same_twice_is_refused_where_it_would_have_to(build):
    for strategy in (STRATEGIES["jvp"], STRATEGIES["head"], None):
        model = build()
        with pytest.raises(UserError, match=r"^the model does not compute the same twice for the same inputs"):
            rehearse(model, IMAGES, 3, strategy, find_head(model, IMAGES))
    for draws in ("kept", "free"):
        rehearse(build(), IMAGES, 3, None, draws=draws)


class Drawing(nn.Module):
    """A network that draws in the shape that `shape` makes of its input's."""

    def __init__(self, shape):
        super().__init__()
        self.linear, self.norm, self.shape = nn.Linear(16, 3), nn.BatchNorm1d(3), shape

    def forward(self, x):
        drawn = F.dropout(torch.ones(self.shape(x)), 0.5)
        return self.norm(self.linear(x.flatten(1))) * drawn.mean()


@pytest.mark.parametrize("shape", [lambda x: (len(x), 16), lambda x: (len(x),), lambda x: (4 * len(x), 4)])
def test_draws_for_each_example_can_be_shared(shape):
    model = Drawing(shape)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    rehearse_shares(model, IMAGES, IMAGES.repeat(2, 1, 1, 1)[:3])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "shape",
    [
        # a weight's, of a size that all batches divide; a sequence with the batch second; a number for all; for some
        lambda x: (12, 16),
        lambda x: (6, len(x), 4),
        lambda x: (),
        lambda x: (len(x) - 1, 4),
        lambda x: (2 * (len(x) // 2), 4),
    ],
)
def test_draws_that_are_not_the_examples_own_cannot_be_shared(shape):
    with pytest.raises(UserError, match="not its examples' own"):
        rehearse_shares(Drawing(shape), IMAGES, IMAGES.repeat(2, 1, 1, 1)[:3])
