import copy
import json

import pytest
import torch
from torch import nn

from reweight_core.engine.lookahead import STRATEGIES, Choice
from reweight_core.errors import UserError
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import MethodPlugin
from reweight_core.testing import tiny_parts, train_in
from reweight_core.testing.method_suite import feed, run_steps
from reweight_core.training import auto
from reweight_core.training.auto import Tried, choose_lookahead, relative_error, tried
from reweight_core.training.state import TrainingState

N = 10


class Looking:
    """A method whose weights are the derivative of the meta loss, with state of its own."""

    def __init__(self):
        self.looks = torch.zeros(())

    @hookimpl
    def generate_weights(self, step):
        w = torch.ones_like(step.losses, requires_grad=True)
        loss = step.meta_loss(w[:, None] * step.D, unit_rate=True)
        self.looks += 1
        return 1 + torch.autograd.grad(loss, w)[0]

    def state_dict(self):
        return {"looks": self.looks}

    def load_state_dict(self, state):
        self.looks.copy_(state["looks"])


@pytest.fixture
def looking(monkeypatch):
    """Build what a run of the method trains with, in place of erm."""

    def make(model="resnet20", **options):
        plugin = MethodPlugin(
            "erm", "looks", lambda config, context: Looking(), needs_meta_set=True, looks_ahead="network"
        )
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", plugin)
        # the tiny data come from no plugin
        monkeypatch.setattr("reweight_core.plugins.registry.version_of", lambda kind, name: "tiny 1.0")
        parts = tiny_parts("erm", model=model, **options)
        parts.model.train()
        feed(parts, 0)
        return parts

    return make


def test_comparing_leaves_everything_as_it_was(looking):
    parts = looking()
    run_steps(parts, 2)
    feed(parts, 2)
    before = copy.deepcopy(TrainingState(parts).state_dict())
    for name in STRATEGIES:
        tried(parts.step, N, Choice(name))
    after = TrainingState(parts).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_batch_that_moves_the_network_is_tried_without_a_trace(looking):
    parts = looking()

    class Moving:
        """Moves the weights before the forward pass, to move them back after the update: which is not called."""

        @hookimpl(wrapper=True)
        def transform_batch(self, batch):
            with torch.no_grad():
                for tensor in (*parts.model.parameters(), *parts.model.buffers()):
                    tensor.add_(1)
            return (yield)

    parts.hooks._manager.register(Moving())
    before = copy.deepcopy(TrainingState(parts).state_dict())
    tried(parts.step, N, Choice("jvp"))
    after = TrainingState(parts).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_tried_is_what_the_step_would_do(looking):
    one, other = looking(), looking()
    found = tried(one.step, N, Choice("jvp"))
    other.step.lookahead = Choice("jvp")
    step = other.step.open(N)
    weights = other.hooks.generate_weights(step)
    assert torch.equal(found.weights, weights)
    assert torch.equal(found.D_prime, other.hooks.manipulate_gradient(step, weights))


@pytest.mark.parametrize(("error", "name"), [(0.009, "fd"), (0.011, "jvp")])
def test_differences_are_taken_up_to_an_error_of_one_percent(looking, monkeypatch, error, name):
    parts = looking()
    exact = torch.full((N,), 2.0)
    answers = {None: exact, 1e-3: exact * (1 + 3 * error), 1e-4: exact * (1 + error), 1e-5: exact * (1 - 2 * error)}
    # weights that learned labels, say, leave at 1: what counts is D'
    monkeypatch.setattr(auto, "tried", lambda step, size, way, *_: Tried(torch.ones(N), answers[way.length], True))
    choice = choose_lookahead(parts.step, N)
    assert (choice.name, choice.length) == (name, 1e-4 if name == "fd" else None)
    assert choice.error == pytest.approx(error, rel=1e-4)


def test_a_method_that_does_not_look_ahead_yet_may_do_so_later():
    parts = tiny_parts("erm")
    parts.model.train()
    feed(parts, 0)
    assert choose_lookahead(parts.step, N) == Choice("jvp")


def test_an_error_that_is_no_number_is_never_the_best(looking, monkeypatch):
    parts = looking()
    exact = torch.full((N,), 2.0)
    answers = {None: exact, 1e-3: exact * torch.nan, 1e-4: exact * 1.005, 1e-5: exact * torch.inf}
    monkeypatch.setattr(auto, "tried", lambda step, size, way, *_: Tried(torch.ones(N), answers[way.length], True))
    assert choose_lookahead(parts.step, N).length == 1e-4
    answers[1e-4] = exact * torch.nan
    assert choose_lookahead(parts.step, N) == Choice("jvp")


@pytest.mark.parametrize(
    ("found", "expected", "error"), [([0, 0], [0, 0], 0), ([3, 4], [0, 5], 10**0.5 / 5), ([1, 0], [0, 0], 1)]
)
def test_the_error_is_relative_and_guards_zero(found, expected, error):
    assert relative_error(torch.tensor(found), torch.tensor(expected)) == pytest.approx(error)


@pytest.mark.parametrize(("tolerance", "name"), [(torch.inf, "fd"), (0.0, "jvp")])
def test_the_choice_is_measured_at_the_start_and_after_every_epoch_and_recorded(
    looking, monkeypatch, tmp_path, tolerance, name
):
    monkeypatch.setattr(auto, "TOLERANCE", tolerance)
    parts = looking(model="mlp", epochs=3)
    run = train_in(tmp_path / "run", parts)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    at_start = json.loads((run.folder / "config.json").read_text())["lookahead"]
    used = [{key.removeprefix("lookahead_"): line[key] for key in line if "lookahead_" in key} for line in lines]
    assert {key: at_start[key] for key in ("length", "error")} == used[0]
    assert [line["lookahead"] for line in lines] == [at_start["name"], name, name] == [name] * 3
    for choice in used:
        assert (choice["length"] in auto.LENGTHS) == (name == "fd")
        assert 0 < choice["error"] < 0.1
    # each of another batch
    assert len({choice["error"] for choice in used}) == 3
    assert parts.hooks.plugins["erm"].looks.item() == run.summary["steps"]


class Untangled(torch.autograd.Function):
    """An operator without a forward-mode rule."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        return Untangled.apply(self.linear(x.flatten(1)))


def test_a_network_without_forward_mode_gets_double_backward_with_a_warning(looking, monkeypatch):
    monkeypatch.setattr("reweight_core.training.networks.build_model", lambda *_: Net())
    with pytest.warns(UserWarning, match="double backward instead"):
        assert looking().step.lookahead == Choice("double")
    with pytest.raises(UserError, match="use --lookahead double"):
        looking(lookahead="jvp")
    with pytest.raises(UserError, match="does not end in one with trainable weights"):
        looking(lookahead="head")


@pytest.mark.parametrize("lookahead", ["jvp", "fd", "head", "double"])
def test_a_look_ahead_that_was_asked_for_is_kept(looking, lookahead, tmp_path):
    parts = looking(model="mlp", lookahead=lookahead, epochs=1)
    train_in(tmp_path / "run", parts)
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["lookahead"] == lookahead
    assert json.loads(line)["lookahead_length"] == (3e-4 if lookahead == "fd" else None)
