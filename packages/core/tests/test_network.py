"""Further networks and tensors of a plugin's own: what trains them, what is kept of them, and what is refused."""

import json

import attrs
import pytest
import torch
from safetensors.torch import save_file

from reweight_core.engine.optimizers import NamedOptimizer, OptimizerSettings
from reweight_core.errors import PluginError
from reweight_core.measure.bench import floor
from reweight_core.models.cifar_resnet import CifarResNet
from reweight_core.plugins import erm, registry
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import ComponentPlugin
from reweight_core.testing import tiny_parts, train_in
from reweight_core.testing.exact_run import SIZE, ExactRun, make_context, make_network
from reweight_core.testing.method_suite import assert_replays_like_eager, assert_same_state, feed, run_steps
from reweight_core.training import auto
from reweight_core.training.build import build_parts
from reweight_core.training.state import TrainingState


def small_resnet(input_shape, num_classes):
    return CifarResNet(input_shape, num_classes, depth=8)


class Twin:
    """Trains a further network plainly beside the run's, and a matrix that goes down a known slope."""

    def __init__(self, config, context):
        self.second = context.new_network("second")
        self.matrix = context.new_optimizer("matrix", {"W": torch.eye(2)}, momentum=0.5)
        self.seen = torch.zeros(())

    @hookimpl
    def generate_weights(self, step):
        self.second.update(self.plain(step, self.second.logits(step.inputs).requires_grad_()))
        self.matrix.step({"W": self.matrix.parameters["W"].detach() - 3})
        self.seen += 1
        return torch.ones_like(step.losses)

    def plain(self, step, logits):
        losses = -logits.log_softmax(1).gather(1, step.labels[:, None]).squeeze(1)
        return torch.autograd.grad(losses.sum(), logits)[0] / step.n

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        assert set(state) == {"seen"}
        self.seen.copy_(state["seen"])


@pytest.fixture
def parts(monkeypatch):
    """Build what a run of a method class trains with, in place of erm."""

    def make(method=Twin, **options):
        record = attrs.evolve(erm.plugin, build=method, looks_ahead=options.pop("looks_ahead", "no"))
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)
        # the tiny data come from no plugin
        monkeypatch.setattr("reweight_core.plugins.registry.version_of", lambda kind, name: "tiny 1.0")
        return tiny_parts("erm", **{"model": f"{__name__}:small_resnet", **options})

    return make


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16"},
        {"optimizer": "adam", "lr": 0.01},
        {"max_grad_norm": 0.3},
        {"channels_last": False, "memory": "lean"},
        {"head": "cosine"},
    ],
    ids=str,
)
def test_from_equal_weights_it_is_trained_like_the_runs_network_to_the_bit(parts, options):
    built = parts(**options)
    second = built.hooks.networks["second"].model
    before = [p.clone() for p in second.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, built.model.parameters(), strict=True) if a.dim() > 1)
    second.load_state_dict(built.model.state_dict())
    run_steps(built, 4)
    trained = second.state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in built.model.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(before, second.parameters(), strict=True))


def test_it_follows_every_rate_and_updates_running_statistics_once_a_step(parts):
    built = parts()
    second = built.hooks.networks["second"].model
    run_steps(built, 2)
    feed(built, 2)
    built.step.lr.fill_(0)
    held = [p.clone() for p in second.parameters()]
    built.step.run(10)
    assert all(torch.equal(a, b) for a, b in zip(held, second.parameters(), strict=True))
    counts = [b.item() for name, b in second.named_buffers() if name.endswith("num_batches_tracked")]
    assert set(counts) == {3}


def test_initial_weights_follow_from_the_seed_and_the_name(parts):
    class Three:
        def __init__(self, config, context):
            self.networks = [context.new_network(name) for name in ("b", "a")]

    def weights(**options):
        built = parts(Three, **options)
        return {name: network.model.state_dict()["linear.weight"] for name, network in built.hooks.networks.items()}

    first, again, other = weights(), weights(), weights(seed=1)
    assert torch.equal(first["a"], again["a"])
    assert not torch.equal(first["a"], first["b"])
    assert not torch.equal(first["a"], other["a"])


def test_building_it_leaves_every_other_draw_as_it_was(parts):
    class Drawing:
        def __init__(self, config, context):
            if config.makes:
                context.new_network("second")
            self.drawn = torch.rand(3)

    plain = parts(lambda config, context: Drawing(type("", (), {"makes": False}), context))
    built = parts(lambda config, context: Drawing(type("", (), {"makes": True}), context))
    assert torch.equal(plain.hooks.plugins["erm"].drawn, built.hooks.plugins["erm"].drawn)
    assert torch.equal(next(plain.model.parameters()), next(built.model.parameters()))


def test_a_restored_run_goes_on_as_an_uninterrupted_one(parts):
    uninterrupted, saved, restored = parts(), parts(), parts(seed=1)
    run_steps(uninterrupted, 5)
    run_steps(saved, 3)
    state = {name: tensor.clone() for name, tensor in TrainingState(saved).state_dict().items()}
    assert "plugin.erm.made.second.network.linear.weight" in state
    assert "plugin.erm.made.matrix.parameters.W" in state
    TrainingState(restored).load_state_dict(state)
    run_steps(restored, 5, first=3)
    assert_same_state(uninterrupted, restored)


def test_a_recorded_step_replays_like_an_eager_one(parts):
    assert_replays_like_eager(parts)


def test_a_rehearsal_leaves_networks_and_tensors_as_they_were(parts):
    class Dropping(Twin):
        """Draws from the network's own generator, too."""

        @hookimpl
        def generate_weights(self, step):
            torch.rand(1, generator=self.second._generator)
            return super().generate_weights(step)

    built = parts(Dropping, looks_ahead="network")
    run_steps(built, 2)
    feed(built, 2)
    before = {name: tensor.clone() for name, tensor in TrainingState(built).state_dict().items()}
    auto.tried(built.step, 10, built.step.lookahead)
    after = TrainingState(built).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_its_accuracies_are_in_metrics_and_summary(parts, tmp_path):
    summary = train_in(tmp_path / "run", parts()).summary
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["second_test_accuracy"] <= 1 and line["second_val_accuracy"] is None for line in lines)
    assert summary["second_test_accuracy"] == lines[-1]["second_test_accuracy"]


def test_a_benchmark_counts_its_passes(parts):
    built = parts()
    feed(built, 0)
    assert floor(built) == 2


class Painting:
    """Makes a network and initialises all: the first parameter becomes the number of networks so far."""

    def __init__(self, config, context):
        self.second, self.models = context.new_network("second"), []

    @hookimpl
    def initialise_network(self, model):
        self.models.append(model)
        next(model.parameters()).fill_(len(self.models))


def test_plugins_initialise_the_runs_network_and_then_the_further_ones(parts):
    built = parts(Painting)
    painting = built.hooks.plugins["erm"]
    assert painting.models == [built.model, painting.second.model]
    assert [next(model.parameters()).mean().item() for model in painting.models] == [1, 2]
    assert all(p.requires_grad and p.is_leaf for p in built.model.parameters())


def test_weights_that_were_trained_before_are_not_initialised(parts, tmp_path):
    weights = {name: tensor.contiguous() for name, tensor in parts(seed=1).model.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    begun = parts(Painting, init_from=tmp_path / "weights.safetensors")
    assert begun.hooks.plugins["erm"].models == []
    for model in (begun.model, begun.hooks.networks["second"].model):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    restored = build_parts(begun.config, begun.data, restored=True)
    assert restored.hooks.plugins["erm"].models == []
    assert not torch.equal(restored.model.conv.weight, weights["conv.weight"])


def test_an_update_without_a_forward_pass_is_refused():
    second = make_context().new_network("second")
    second.logits(torch.zeros(4, 3, 5, 5, dtype=torch.float64))
    second.update(torch.zeros(4, 4, dtype=torch.float64))
    with pytest.raises(PluginError, match=r"^method 'method': new_network\('second'\): update\(\) needs"):
        second.update(torch.zeros(4, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", ["a.b", "", "2nd", "a-b"])
def test_names_that_cannot_be_told_apart_in_the_state_are_refused(name):
    with pytest.raises(PluginError, match="the name must be letters"):
        make_context().new_network(name)


def test_two_things_of_one_name_are_refused():
    context = make_context()
    context.new_optimizer("second", {"a": torch.zeros(1)})
    with pytest.raises(PluginError, match="there is something of this name already"):
        context.new_network("second")


def test_networks_of_one_name_in_two_plugins_are_refused(parts, monkeypatch):
    find = registry.find
    record = ComponentPlugin("other", "makes one too", lambda config, context: context.new_network("second"))
    monkeypatch.setattr(registry, "find", lambda kind, name: record if kind == "component" else find(kind, name))
    with pytest.raises(PluginError, match="component 'other' and method 'erm' both make a network 'second'"):
        parts(**{"with": ("other",)})


def test_what_is_made_after_the_plugin_was_built_is_refused(parts):
    class Late:
        def __init__(self, config, context):
            self.context = context

    context = parts(Late).hooks.plugins["erm"].context
    with pytest.raises(PluginError, match=r"method 'erm': new_network\('late'\): .* only while the plugin is built"):
        context.new_network("late")
    with pytest.raises(PluginError, match=r"new_optimizer\('late'\)"):
        context.new_optimizer("late", {})


class TestParameterOptimizer:
    def test_steps_are_those_of_torchs_sgd(self):
        start, rates = torch.tensor([1.0, -2.0, 0.5]), (0.5, 0.25, 0.125)
        context = make_context(weight_decay=0.1)
        made = context.new_optimizer("made", {"W": start})
        expected = start.clone().requires_grad_()
        sgd = torch.optim.SGD([expected], lr=1, momentum=0.9, weight_decay=0.1)
        for rate in rates:
            context.lr.fill_(rate)
            sgd.param_groups[0]["lr"] = rate
            expected.grad = expected.detach() ** 2
            sgd.step()
            made.step({"W": made.parameters["W"].detach() ** 2})
        torch.testing.assert_close(made.parameters["W"], expected, rtol=0, atol=1e-7)
        assert start.tolist() == [1, -2, 0.5]

    def test_settings_of_its_own_come_before_the_runs(self):
        made = make_context().new_optimizer(
            "made", {"W": torch.ones(2)}, optimizer="sgd", lr=0.5, momentum=0, weight_decay=0
        )
        for _ in range(2):
            made.step({"W": torch.tensor([1.0, 2.0])})
        assert made.parameters["W"].tolist() == [0, -1]

    def test_its_gradient_is_not_clipped(self, parts):
        class Steep:
            def __init__(self, config, context):
                self.made = context.new_optimizer("made", {"W": torch.zeros(1)}, lr=1, momentum=0, weight_decay=0)

        made = parts(Steep, max_grad_norm=0.1).hooks.plugins["erm"].made
        made.step({"W": torch.tensor([8.0])})
        assert made.parameters["W"].item() == -8

    def test_gradients_for_other_names_are_refused(self):
        made = make_context().new_optimizer("made", {"W": torch.ones(2), "b": torch.ones(1)})
        with pytest.raises(
            PluginError, match=r"new_optimizer\('made'\): step\(\) needs a gradient for each of W, b, but"
        ):
            made.step({"W": torch.ones(2)})

    def test_parameters_can_be_differentiated_and_load_in_place(self):
        made, other = (make_context().new_optimizer("made", {"W": torch.full((2,), v)}) for v in (1.0, 2.0))
        (made.parameters["W"] ** 2).sum().backward()
        made.step({"W": made.parameters["W"].grad.clone()})
        place = other.parameters["W"].data_ptr()
        other.load_state_dict(made.state_dict())
        assert torch.equal(other.parameters["W"], made.parameters["W"])
        assert other.parameters["W"].data_ptr() == place
        assert other.parameters["W"].requires_grad


def test_a_named_optimizer_clips_what_all_gradients_together_are_too_long_by():
    lr, settings = torch.ones(()), OptimizerSettings(momentum=0, weight_decay=0, max_grad_norm=1.0)
    tensors = {name: torch.zeros(1, requires_grad=True) for name in "ab"}
    optimizer = NamedOptimizer(tensors, settings, lr)
    (3 * tensors["a"] + 4 * tensors["b"]).backward()
    optimizer.step()
    assert [t.item() for t in tensors.values()] == pytest.approx([-0.6, -0.8], abs=1e-5)
    optimizer.zero_grad()
    assert tensors["a"].grad.item() == 0


def test_the_exact_run_trains_a_further_network_like_its_own():
    context = make_context()

    class Beside:
        def __init__(self):
            self.second = context.new_network("second")

        @hookimpl
        def generate_weights(self, step):
            self.second.logits(step.inputs)
            self.second.update(step.D)
            return torch.ones_like(step.losses)

    method = Beside()
    method.second.model.load_state_dict(make_network().state_dict())
    run = ExactRun(method, lr=context.lr)
    for ids in (range(10), range(10, SIZE)):
        run.take(ids, 0.25)
    expected = run.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in method.second.model.state_dict().items())
