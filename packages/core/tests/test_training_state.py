"""What a checkpoint brings back, whatever plugins are called, and who reads the held-out sets."""

import copy

import attrs
import numpy as np
import pytest
import torch

from reweight_core.data.dataset import Split
from reweight_core.data.images import ImageFiles
from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import ComponentPlugin, MethodPlugin
from reweight_core.runs import checkpoint
from reweight_core.testing import tiny_parts
from reweight_core.testing.method_suite import run_steps
from reweight_core.training.build import build_parts
from reweight_core.training.held_out import HeldOut
from reweight_core.training.state import TrainingState

CORES_OWN = ["network", "optimizer", "samples", "generator", "step", "plugin", "model", "core"]


class Counter:
    """Counts steps, in a tensor that is called like one of a network's."""

    def __init__(self, config, context):
        self.count = torch.zeros(())

    @hookimpl
    def follow_update(self, parameters):
        self.count += 1

    @hookimpl
    def evaluation_model(self, model):
        return copy.deepcopy(model)

    def state_dict(self):
        return {"weight": self.count, "0.weight": 2 * self.count}

    def load_state_dict(self, state):
        assert set(state) == {"weight", "0.weight"}
        self.count.copy_(state["weight"])


@pytest.fixture
def counting(monkeypatch):
    """Build parts with a component of any name."""
    find = registry.find

    def make(name, **options):
        record = ComponentPlugin(name, "counts", Counter)
        monkeypatch.setattr(registry, "find", lambda kind, n: record if kind == "component" else find(kind, n))
        return tiny_parts("erm", model="mlp", **{"with": (name,)}, **options)

    return make


@pytest.mark.parametrize("name", CORES_OWN)
def test_a_plugin_may_be_called_like_something_of_cores(counting, name, tmp_path):
    parts, other = counting(name), counting(name, seed=1)
    run_steps(parts, 3)
    saved = TrainingState(parts)
    saved.epochs_done = saved.steps_done = 3
    checkpoint.save(tmp_path, saved.checkpoint(), keep=2)
    TrainingState(other).restore(checkpoint.load_latest(tmp_path))
    assert other.hooks.plugins[name].count == 3
    before, after = saved.state_dict(), TrainingState(other).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_checkpoint_of_other_parts_is_refused(tmp_path):
    checkpoint.save(tmp_path, TrainingState(tiny_parts("erm", model="lenet")).checkpoint(), keep=2)
    with pytest.raises(UserError, match="does not fit this run"):
        TrainingState(tiny_parts("erm", model="mlp")).restore(checkpoint.load_latest(tmp_path))


class BringsItsOwn:
    """Looks ahead at a meta set that it takes out of the training set."""

    def __init__(self, config, context):
        self.train = context.train

    @hookimpl
    def provide_meta_set(self, held_out):
        return self.train

    @hookimpl
    def generate_weights(self, step):
        w = torch.ones_like(step.losses, requires_grad=True)
        return torch.autograd.grad(step.meta_loss(w[:, None] * step.D, unit_rate=True), w)[0].sign()


@pytest.fixture
def brings_its_own(monkeypatch):
    """Build parts of a method that looks ahead and needs no clean examples."""

    def make(looks_ahead, **options):
        record = MethodPlugin("erm", "brings its own", BringsItsOwn, looks_ahead=looks_ahead)
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)
        parts = tiny_parts("erm", model="mlp", **options)
        return build_parts(parts.config, attrs.evolve(parts.data, meta=None))

    return make


@pytest.mark.parametrize("lookahead", ["jvp", "fd", "double"])
def test_a_method_that_brings_its_own_meta_set_looks_ahead_as_it_is_told(brings_its_own, lookahead):
    parts = brings_its_own("network", lookahead=lookahead)
    assert parts.step.lookahead.name == lookahead
    run_steps(parts, 1)
    assert parts.step.sums.meta_steps == 1


def test_a_method_whose_record_does_not_say_that_it_looks_ahead_is_told(brings_its_own):
    parts = brings_its_own("no")
    with pytest.raises(UserError, match='looks_ahead="network" is missing'):
        run_steps(parts, 1)


def test_a_method_that_looks_ahead_at_nothing_is_refused(brings_its_own, monkeypatch):
    monkeypatch.delattr(BringsItsOwn, "provide_meta_set")
    with pytest.raises(UserError, match="looks ahead at clean examples, and there are none: give --meta-size"):
        brings_its_own("network")


def test_held_out_images_are_read_by_what_evaluates_alone(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    files = ImageFiles(tmp_path, np.array(["broken.png"] * 4, dtype=object), 8)
    parts = tiny_parts("erm", model="mlp")
    data = attrs.evolve(parts.data, test=Split(files, np.arange(4)))
    assert len(build_parts(parts.config, data).train) == len(parts.train)
    with pytest.raises(UserError, match=r"broken\.png"):
        HeldOut.of(attrs.evolve(parts.config, workers=0), data, parts.device)
