import copy
import json

import pytest
import torch
from torch import nn

from reweight_core.engine.lookahead import STRATEGIES
from reweight_core.errors import UserError
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import MethodPlugin
from reweight_core.testing import tiny_trainer
from reweight_core.testing.method_suite import feed, full_state, run_steps
from reweight_core.training import auto as comparison
from reweight_core.training.auto import Choice, choose, relative_error, weights_under

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
    """Build a trainer of the method in place of erm."""

    def make(model="resnet20", **options):
        plugin = MethodPlugin("erm", "looks", lambda config, context: Looking(), looks_ahead="network")
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", plugin)
        # the tiny data come from no plugin
        monkeypatch.setattr("reweight_core.plugins.registry.version_of", lambda kind, name: "tiny 1.0")
        trainer = tiny_trainer("erm", model=model, **options)
        trainer.model.train()
        feed(trainer, 0)
        return trainer

    return make


def test_comparing_leaves_everything_as_it_was(looking):
    trainer = looking()
    run_steps(trainer, 2)
    feed(trainer, 2)
    before = copy.deepcopy(full_state(trainer))
    for strategy in STRATEGIES.values():
        weights_under(trainer, N, strategy)
    after = full_state(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_are_those_that_the_step_would_give(looking):
    one, other = looking(), looking()
    expected = weights_under(one, N, STRATEGIES["jvp"])
    other.step.strategy = STRATEGIES["jvp"]
    assert torch.equal(expected, other.hooks.generate_weights(other.step.open(N)))


@pytest.mark.parametrize(("error", "name"), [(0.009, "fd"), (0.011, "jvp")])
def test_differences_are_taken_up_to_an_error_of_one_percent(looking, monkeypatch, error, name):
    trainer = looking()
    exact = torch.full((N,), 2.0)
    answers = {"jvp": exact, 1e-3: exact * (1 + 3 * error), 1e-4: exact * (1 + error), 1e-5: exact * (1 - 2 * error)}
    monkeypatch.setattr(comparison, "finite_difference", lambda length: length)
    monkeypatch.setitem(comparison.STRATEGIES, "jvp", "jvp")
    monkeypatch.setattr(comparison, "weights_under", lambda trainer, size, strategy: answers[strategy])
    choice = choose(trainer, N)
    assert (choice.name, choice.length) == (name, 1e-4 if name == "fd" else None)
    assert choice.error == pytest.approx(error, rel=1e-4)


def test_a_method_that_does_not_look_ahead_is_found_out():
    trainer = tiny_trainer("erm")
    trainer.model.train()
    feed(trainer, 0)
    assert choose(trainer, N) == Choice("none")


@pytest.mark.parametrize(
    ("found", "expected", "error"), [([0, 0], [0, 0], 0), ([3, 4], [0, 5], 10**0.5 / 5), ([1, 0], [0, 0], 1)]
)
def test_the_error_is_relative_and_guards_zero(found, expected, error):
    assert relative_error(torch.tensor(found), torch.tensor(expected)) == pytest.approx(error)


def test_the_choice_is_measured_at_the_start_and_after_every_epoch_and_recorded(looking, tmp_path):
    trainer = looking(model="mlp", epochs=3)
    run = trainer.run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert line["lookahead"] in ("fd", "jvp")
        assert (line["lookahead_length"] is not None) == (line["lookahead"] == "fd")
        assert line["lookahead_error"] <= 0.01 or line["lookahead"] == "jvp"
    assert json.loads((tmp_path / "config.json").read_text())["lookahead"]["name"] in ("fd", "jvp")
    assert trainer.method.looks.item() == run.summary["steps"]


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
    monkeypatch.setattr("reweight_core.training.loop.build_model", lambda *_: Net())
    with pytest.warns(UserWarning, match="double backward instead"):
        assert looking().lookahead == Choice("double")
    with pytest.raises(UserError, match="use --lookahead double"):
        looking(lookahead="jvp")
    with pytest.raises(UserError, match="does not end in one with trainable weights"):
        looking(lookahead="head")


@pytest.mark.parametrize("lookahead", ["jvp", "fd", "head", "double"])
def test_a_look_ahead_that_was_asked_for_is_kept(looking, lookahead, tmp_path):
    trainer = looking(model="mlp", lookahead=lookahead, epochs=1)
    trainer.run(tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["lookahead"] == lookahead
    assert json.loads(line)["lookahead_length"] == (3e-4 if lookahead == "fd" else None)
