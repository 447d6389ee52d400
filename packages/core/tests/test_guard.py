"""Mistakes in a plugin's hooks and state, each told with the kind and the name of whoever made it."""

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from reweight_core.data.batch import Batch
from reweight_core.errors import PluginError, UserError
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.runs.checkpoint import Final
from reweight_core.runs.predict import build_final
from reweight_core.testing import tiny_parts
from reweight_core.training.build import begin

N = 4
BATCH = Batch(torch.arange(N), torch.zeros(N, 1, 2, 2), torch.zeros(N, dtype=torch.int64))


def part(hook, function, **settings):
    """An object with one hook."""
    function.__name__ = hook
    return type("Part", (), {hook: hookimpl(**settings)(function)})()


def hooks_of(method=None, **parts):
    return MethodHooks(object() if method is None else method, "mine", **parts)


def test_a_crash_names_the_component_that_crashed_and_not_what_is_around_it():
    def crash(self, batch):
        batch = yield
        return {}[batch]

    def wrap(self, batch):
        return (yield)

    components = {
        "first": part("transform_batch", wrap, wrapper=True),
        "balanced": part("transform_batch", crash, wrapper=True),
        "last": part("transform_batch", wrap, wrapper=True),
    }
    place = r"\(test_guard\.py, line \d+\)$"
    with pytest.raises(PluginError, match=rf"^component 'balanced': transform_batch: KeyError: .* {place}") as caught:
        hooks_of(components=components).transform_batch(BATCH)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_method_that_returns_nothing_is_named_where_a_component_would_stumble_over_it():
    def forget(self, step):
        pass

    def double(self, step):
        return 2 * (yield)

    hooks = hooks_of(
        part("generate_weights", forget), components={"double": part("generate_weights", double, wrapper=True)}
    )
    with pytest.raises(PluginError, match=r"^method 'mine': generate_weights returned None \(a forgotten return\?\)$"):
        hooks.generate_weights(None)


def test_a_component_sees_weights_without_a_graph():
    seen = []

    def watch(self, step):
        seen.append((yield))
        return seen[0]

    hooks = hooks_of(
        part("generate_weights", lambda self: torch.ones(N, requires_grad=True) * 2),
        components={"watch": part("generate_weights", watch, wrapper=True)},
    )
    hooks.generate_weights(attrs.make_class("Step", ["n", "D"])(N, torch.zeros(N, 3)))
    assert not seen[0].requires_grad


def test_a_hook_that_is_not_marked_is_refused():
    class Unmarked:
        def generate_weights(self, step):
            return step.losses

    with pytest.raises(PluginError, match=r"^component 'new': generate_weights has the name of a hook"):
        hooks_of(components={"new": Unmarked()})


def test_the_losses_of_a_step_are_not_known_while_its_forward_pass_is_followed():
    def follow(self, step):
        return step.losses

    class Eager:
        follow_forward = hookimpl(lambda self, step: follow(self, step))

    Eager.follow_forward.__name__ = "follow_forward"
    parts = tiny_parts("erm", model="mlp")
    parts.step.hooks = hooks_of(Eager())
    begin(parts)
    with pytest.raises(PluginError, match=r"^method 'mine': the losses and D of a step are not known yet"):
        parts.step.run(10)


def test_looking_for_hooks_runs_no_property():
    class Careful:
        @property
        def losses(self):
            raise AssertionError("run")

    hooks_of(Careful())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda batch: {"ids": batch.ids.clone()}, "changed the ids of the batch"),
        (lambda batch: {"inputs": batch.inputs[1:]}, "returned 3 images for 4 ids"),
        (lambda batch: {"labels": batch.labels.float()}, r"returned labels of torch.float32, shape \(4,\)"),
        (lambda batch: {"labels": batch.labels[:2]}, r"returned labels of torch.int64, shape \(2,\)"),
        (lambda batch: {"targets": batch.labels}, r"returned targets of shape \(4,\); they must be rows \(4, C\)"),
    ],
)
def test_a_batch_whose_rows_do_not_fit_its_examples_is_refused(change, problem):
    def transform(self, batch):
        batch = yield
        return attrs.evolve(batch, **change(batch))

    hooks = hooks_of(components={"odd": part("transform_batch", transform, wrapper=True)})
    with pytest.raises(PluginError, match=f"^component 'odd': transform_batch {problem}"):
        hooks.transform_batch(BATCH)


def test_labels_targets_and_images_of_a_batch_may_change():
    def transform(self, batch):
        return attrs.evolve(batch, inputs=batch.inputs + 1, labels=batch.labels + 1, targets=torch.ones(N, 3) / 3)

    changed = hooks_of(part("transform_batch", transform)).transform_batch(BATCH)
    assert changed.ids is BATCH.ids and changed.labels.tolist() == [1] * N


@pytest.mark.parametrize(
    ("figures", "problem"),
    [
        ([1.0], "returned list, not figures by name"),
        ({"kept": torch.tensor(1.0)}, r"gave 'kept', a Tensor, and figures are numbers: read it with \.item\(\)"),
        ({"kept": "many"}, "gave 'kept', a str, and figures are numbers"),
        ({"kept": None}, "gave 'kept', a NoneType, and figures are numbers"),
    ],
)
def test_figures_that_are_no_numbers_are_refused(figures, problem):
    hooks = hooks_of(components={"counting": part("finish_epoch", lambda self, epoch: figures)})
    with pytest.raises(PluginError, match=f"^component 'counting': finish_epoch {problem}"):
        hooks.finish_epoch(1, {})


def test_figures_of_numpy_become_numbers_that_json_knows():
    figures = {"count": 3, "share": np.float32(0.5), "number": np.int64(2)}
    found = hooks_of(part("finish_epoch", lambda self, epoch: figures)).finish_epoch(1, {})
    assert found == figures
    assert {type(value) for value in found.values()} <= {int, float}


class State:
    def __init__(self, state):
        self._state = state

    def state_dict(self):
        return self._state


class Restored(State):
    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        (State({}), r"has no load_state_dict\(\), so its state would be lost"),
        (Restored({"count": 3}), "state_dict gave 'count', of type int: a checkpoint holds tensors only"),
        (Restored({1: torch.zeros(1)}), "state_dict gave 1, of type Tensor"),
        (Restored(None), "state_dict returned NoneType, not tensors by name"),
    ],
)
def test_state_that_no_checkpoint_can_hold_is_found_before_training(plugin, problem):
    with pytest.raises(PluginError, match=f"^component 'counter': {problem}"):
        hooks_of(components={"counter": plugin}).check_state()


@pytest.mark.parametrize("call", ["state_dict", "load_state_dict"])
def test_a_plugin_that_cannot_save_or_restore_its_state_is_named(call):
    class Forgetful(Restored):
        def load_state_dict(self, state):
            self.count = state["count"]

        def state_dict(self):
            return {"count": self.count}

    hooks = hooks_of(components={"counter": Forgetful({})})
    error = "AttributeError: .* 'count'" if call == "state_dict" else "KeyError: 'count'"
    with pytest.raises(PluginError, match=rf"^component 'counter': {call}: {error} \(test_guard"):
        hooks.state_dict() if call == "state_dict" else hooks.load_state_dict({})


class Source:
    def __init__(self, batch):
        self._batch = batch

    def draw_batch(self):
        return self._batch()


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        (lambda: {}["x"], r": KeyError: 'x' \(test_guard"),
        (lambda: None, " returned NoneType, not a batch"),
        (lambda: attrs.evolve(BATCH, inputs=torch.zeros(1, 1, 2, 2)), " returned 1 images for"),
    ],
)
def test_a_source_of_meta_batches_that_gives_none_is_named(batch, problem):
    provider = part("provide_meta_set", lambda self, held_out: Source(batch))
    source = hooks_of(components={"stream": provider}).provide_meta_set(None)
    with pytest.raises(PluginError, match=f"^component 'stream': draw_batch{problem}"):
        source.draw_batch()


def test_only_plugins_are_asked_to_build_the_final_network_again():
    class Watching:
        @hookimpl(wrapper=True)
        def final_model(self, model):
            return (yield)

    maker = part("final_model", lambda self, model: nn.Linear(2, 2))
    hooks = hooks_of(observers=[Watching()], components={"wide": maker})
    assert hooks.final_model(nn.Linear(1, 1))[1] == [("component", "wide")]


def test_a_record_that_fails_to_build_the_final_network_again_is_named(monkeypatch):
    from reweight_core.plugins import erm

    monkeypatch.setattr(
        "reweight_core.plugins.erm.plugin", attrs.evolve(erm.plugin, final_network=lambda model: {}["x"])
    )
    with pytest.raises(PluginError, match=r"^method 'erm': final_network: KeyError: 'x' \(test_guard"):
        build_final(Final("method", "erm"), nn.Linear(1, 1))


def test_a_run_with_such_state_is_refused_while_it_is_built(monkeypatch):
    from reweight_core.plugins import erm

    broken = attrs.evolve(erm.plugin, build=lambda config, context: Restored({"count": 3}))
    monkeypatch.setattr("reweight_core.plugins.erm.plugin", broken)
    with pytest.raises(UserError, match=r"^method 'erm': state_dict gave 'count', of type int"):
        tiny_parts("erm")


def test_an_observer_may_only_hear():
    heard = []
    listener = part("observe_step", lambda self, done: heard.append(done))
    hooks_of(listeners={"log": listener}).listeners.observe_step(done=3, total=5)
    assert heard == [3]
    meddler = part("generate_weights", lambda self, step: step.losses)
    with pytest.raises(PluginError, match=r"^observer 'log': implements generate_weights; .* make it a component$"):
        hooks_of(listeners={"log": meddler})


def test_a_crash_of_an_observer_is_its_own():
    def crash(self, metrics):
        raise ValueError("no epoch")

    hooks = hooks_of(listeners={"log": part("observe_epoch", crash)})
    with pytest.raises(PluginError, match=r"^observer 'log': observe_epoch: ValueError: no epoch \(test_guard"):
        hooks.listeners.observe_epoch({}, dict)


def test_true_labels_are_for_observers_alone():
    heard = []
    listener = part("observe_epoch", lambda self, samples: heard.append(samples["true"].tolist()))
    hooks_of(listeners={"log": listener}).listeners.observe_epoch({}, lambda: {"true": np.arange(2)})
    assert heard == [[0, 1]]
    with pytest.raises(PluginError, match=r"^component 'curious': observe_epoch takes the samples, whose true labels"):
        hooks_of(components={"curious": listener})
    hooks_of(part("observe_epoch", lambda self, metrics: None))
