from types import SimpleNamespace

import attrs
import pytest
import torch

from reweight_core.data.batch import Batch
from reweight_core.data.examples import Examples
from reweight_core.engine.stage import Stage
from reweight_core.errors import UserError
from reweight_core.plugins.erm import plugin as erm
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.hookspecs import Hooks, hookimpl
from reweight_core.testing import tiny_parts

N, C = 4, 3
BATCH = Batch(torch.arange(N), torch.zeros(N, 1, 2, 2), torch.zeros(N, dtype=torch.int64))
STAGE = Stage("train", 3, 0.1)
ERM = erm.build(None, None)


@pytest.fixture
def step():
    """What the hooks under test read of a step."""
    D = torch.arange(12.0).reshape(N, C)
    return SimpleNamespace(n=N, D=D, losses=torch.arange(4.0))


class Weighting:
    """A method that gives the weights it was made with."""

    def __init__(self, weights):
        self._weights = weights

    @hookimpl
    def generate_weights(self, step):
        return self._weights


class Manipulating:
    """A method that gives the gradient it was made with."""

    def __init__(self, gradient):
        self._gradient = gradient

    @hookimpl
    def manipulate_gradient(self, step, weights):
        return self._gradient


class Wrapping:
    """A method that changes core's weights; `returns` says whether it forgets to give them back."""

    def __init__(self, returns):
        self._returns = returns

    @hookimpl(wrapper=True)
    def generate_weights(self, step):
        weights = yield
        return 2 * weights if self._returns else None


def test_a_misspelled_hook_is_an_error_that_names_it():
    class Misspelled:
        @hookimpl
        def generate_wieghts(self, step):
            return step.losses

    with pytest.raises(UserError, match=r"method 'mine': .*generate_wieghts"):
        MethodHooks(Misspelled(), "mine")


def test_a_hook_with_an_unknown_argument_is_an_error_that_names_it():
    class Wrong:
        @hookimpl
        def generate_weights(self, batch):
            return batch.losses

    with pytest.raises(UserError, match=r"method 'mine': .*'batch'"):
        MethodHooks(Wrong(), "mine")


def test_a_hook_may_take_fewer_arguments(step):
    class Short:
        @hookimpl
        def generate_weights(self):
            return torch.ones(N)

    assert torch.equal(MethodHooks(Short(), "mine").generate_weights(step), torch.ones(N))


@pytest.mark.parametrize(
    ("method", "hook"),
    [(Weighting(torch.ones(N)), "generate_weights"), (Manipulating(None), "manipulate_gradient")],
)
def test_an_observer_that_decides_the_same_as_the_method_is_refused(method, hook):
    with pytest.raises(UserError, match=f"{hook} is implemented by .*only one") as caught:
        MethodHooks(method, "mine", observers=[type(method)(torch.ones(N))])
    assert "mine" in str(caught.value)
    assert " and by " in str(caught.value)


def test_plain_training_uses_every_default(step):
    hooks = MethodHooks(ERM, "erm")
    weights = hooks.generate_weights(step)
    assert hooks.plan_stages(STAGE) == [STAGE]
    assert hooks.provide_meta_set(None) is None
    assert torch.equal(weights, torch.ones(N))
    assert torch.equal(hooks.manipulate_gradient(step, weights), step.D)
    assert torch.equal(hooks.example_weights(step, weights), weights)
    assert hooks.trusted_examples() == {}
    assert hooks.state_dict() == {}


def test_the_held_out_examples_are_the_default_meta_set():
    held_out = tiny_parts("erm").meta
    assert isinstance(held_out, Examples)
    assert MethodHooks(ERM, "erm").provide_meta_set(held_out) is held_out


class Planning:
    """A method with the stages and the meta set that it was made with."""

    def __init__(self, stages=(STAGE,), meta=None):
        self._stages, self._meta = stages, meta

    @hookimpl
    def plan_stages(self, stage):
        return self._stages

    @hookimpl
    def provide_meta_set(self, held_out):
        return self._meta


def test_a_method_plans_its_stages_in_order():
    stages = (STAGE, Stage("clean", 2, 0.01, "meta"))
    assert MethodHooks(Planning(stages), "mine").plan_stages(STAGE) == list(stages)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (None, r"returned None \(a forgotten return\?\)"),
        (STAGE, "returned Stage, not a list of stages"),
        ([], "returned no stage"),
        ([STAGE, "clean"], "returned a str among the stages"),
        ([Stage("clean", 2, 0.1, "test")], "returned stage 'clean' with the source 'test'; it must be train or meta"),
    ],
)
def test_a_plan_that_is_none_is_an_error(stages, message):
    with pytest.raises(UserError, match=f"^method 'mine': plan_stages {message}"):
        MethodHooks(Planning(stages), "mine").plan_stages(STAGE)


def test_a_wrapper_that_forgets_to_return_the_plan_is_found_out():
    class Forgetful:
        @hookimpl(wrapper=True)
        def plan_stages(self, stage):
            yield

    with pytest.raises(UserError, match=r"^component 'forgetful': plan_stages returned None"):
        MethodHooks(ERM, "erm", components={"forgetful": Forgetful()}).plan_stages(STAGE)


def test_a_meta_set_may_be_anything_that_draws_batches():
    batch = Batch(torch.arange(N), torch.zeros(N, 1, 2, 2), torch.zeros(N, dtype=torch.int64))
    source = SimpleNamespace(draw_batch=lambda: batch)
    assert MethodHooks(Planning(meta=source), "mine").provide_meta_set(None).draw_batch() is batch
    assert MethodHooks(Planning(meta=None), "mine").provide_meta_set(None) is None


@pytest.mark.parametrize(("meta", "kind"), [([1, 2], "list"), (torch.zeros(3), "Tensor"), (None, "NoneType")])
def test_a_meta_set_that_is_none_is_an_error(meta, kind):
    held_out = SimpleNamespace(draw_batch=lambda: None)
    with pytest.raises(UserError, match=rf"^method 'mine': provide_meta_set returned {kind}, neither examples nor"):
        MethodHooks(Planning(meta=meta), "mine").provide_meta_set(held_out)


@pytest.mark.parametrize("weights", [torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.arange(12.0).reshape(N, C)])
def test_weights_of_examples_or_of_classes_multiply_the_gradient(step, weights):
    hooks = MethodHooks(Weighting(weights), "mine")
    expected = step.D * (weights if weights.dim() == 2 else weights[:, None])
    assert torch.equal(hooks.manipulate_gradient(step, hooks.generate_weights(step)), expected)


def test_a_method_takes_precedence_over_the_defaults(step):
    gradient = torch.full((N, C), 7.0)
    hooks = MethodHooks(Manipulating(gradient), "mine")
    assert torch.equal(hooks.manipulate_gradient(step, torch.ones(N)), gradient)


def test_what_a_method_returns_is_detached(step):
    weights = torch.ones(N, requires_grad=True)
    assert not MethodHooks(Weighting(weights), "mine").generate_weights(step).requires_grad


def test_a_wrapper_changes_the_result_and_is_no_second_generator(step):
    hooks = MethodHooks(Weighting(torch.ones(N)), "mine", observers=[Wrapping(returns=True)])
    assert torch.equal(hooks.generate_weights(step), torch.full((N,), 2.0))


def test_a_wrapper_that_forgets_its_return_is_an_error(step):
    hooks = MethodHooks(Wrapping(returns=False), "mine")
    with pytest.raises(UserError, match=r"^method 'mine': generate_weights returned None \(a forgotten return"):
        hooks.generate_weights(step)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.ones(N, 1),
        torch.ones(C),
        torch.ones(()),
        torch.ones(N, dtype=torch.float64),
        torch.ones(N, device="meta"),
        1.0,
    ],
)
def test_weights_of_another_shape_type_or_device_are_an_error(step, wrong):
    with pytest.raises(UserError, match="'mine': generate_weights returned"):
        MethodHooks(Weighting(wrong), "mine").generate_weights(step)


class Recording:
    """A method that records what it was made with."""

    def __init__(self, recorded):
        self._recorded = recorded

    @hookimpl
    def example_weights(self, step, weights):
        return self._recorded


def test_what_is_recorded_of_weights_for_classes_is_their_mean_unless_the_method_says_otherwise(step):
    weights = torch.arange(12.0).reshape(N, C)
    assert MethodHooks(ERM, "erm").example_weights(step, weights).tolist() == [1, 4, 7, 10]
    own = torch.arange(4.0, requires_grad=True)
    recorded = MethodHooks(Recording(own), "mine").example_weights(step, weights)
    assert torch.equal(recorded, own)
    assert not recorded.requires_grad


@pytest.mark.parametrize("wrong", [None, torch.ones(N, C), torch.ones(C), torch.ones(N, dtype=torch.float64)])
def test_recorded_weights_of_another_shape_or_type_are_an_error(step, wrong):
    with pytest.raises(UserError, match="'mine': example_weights returned"):
        MethodHooks(Recording(wrong), "mine").example_weights(step, torch.ones(N))


@pytest.mark.parametrize("wrong", [torch.ones(N), torch.ones(C, N), torch.ones(N, C, dtype=torch.float16)])
def test_a_gradient_of_another_shape_or_type_is_an_error(step, wrong):
    with pytest.raises(UserError, match="'mine': manipulate_gradient returned"):
        MethodHooks(Manipulating(wrong), "mine").manipulate_gradient(step, torch.ones(N))


def test_all_observers_hear_of_steps_and_epochs():
    heard = []

    class Observer:
        @hookimpl
        def observe_step(self, done, total):
            heard.append((done, total))

        @hookimpl
        def observe_epoch(self, metrics):
            heard.append(metrics)

    hooks = MethodHooks(Observer(), "mine", observers=[Observer(), Observer()])
    hooks.listeners.observe_step(done=1, total=2)
    hooks.listeners.observe_epoch({"epoch": 1}, dict)
    assert heard == [(1, 2)] * 3 + [{"epoch": 1}] * 3


def test_a_plain_hook_that_forgets_its_return_is_an_error(step):
    hooks = MethodHooks(Weighting(None), "mine")
    with pytest.raises(UserError, match=r"^method 'mine': generate_weights returned None"):
        hooks.generate_weights(step)


def test_an_argument_with_a_default_is_an_error():
    class Defaulting:
        @hookimpl
        def manipulate_gradient(self, step, weights=None):
            return step.D

    with pytest.raises(UserError, match="'mine': the arguments of manipulate_gradient must not have defaults"):
        MethodHooks(Defaulting(), "mine")


def test_a_mistake_of_an_observer_is_not_blamed_on_the_method():
    class Listener:
        @hookimpl
        def observe_epoch(self, numbers):
            pass

    with pytest.raises(UserError, match=r"^Listener \(observer 0\): .*'numbers'"):
        MethodHooks(ERM, "mine", observers=[Listener()])


@pytest.mark.parametrize("hook", ["transform_batch", "evaluation_model"])
def test_a_component_that_forgets_to_return_is_found_out(hook):
    class Forgetful:
        @hookimpl(wrapper=True)
        def transform_batch(self, batch):
            batch = yield
            return batch if hook != "transform_batch" else None

        @hookimpl(wrapper=True)
        def evaluation_model(self, model):
            model = yield
            return model if hook != "evaluation_model" else None

    hooks = MethodHooks(ERM, "erm", components={"forgetful": Forgetful()})
    with pytest.raises(UserError, match=f"^component 'forgetful': {hook} returned None"):
        hooks.transform_batch(BATCH)
        hooks.evaluation_model(torch.nn.Identity())


def test_figures_of_an_epoch_come_from_all_parts():
    class Counting:
        def __init__(self, name):
            self.name = name

        @hookimpl
        def finish_epoch(self, epoch):
            return {self.name: float(epoch)}

    hooks = MethodHooks(Counting("method"), "mine", components={"one": Counting("one"), "two": Counting("two")})
    assert hooks.finish_epoch(3, {}) == {"method": 3.0, "one": 3.0, "two": 3.0}
    for taken, components in ((["method"], {}), ([], {"one": Counting("method")})):
        hooks = MethodHooks(Counting("method"), "mine", components=components)
        with pytest.raises(UserError, match=r"finish_epoch gives a figure 'method', but there is one of this name"):
            hooks.finish_epoch(3, {}, taken)
    assert MethodHooks(ERM, "erm").finish_epoch(3, {}) == {}


class Trusting:
    """A plugin that trusts the set that it was made with."""

    def __init__(self, name, ids):
        self._trusted = None if name is None else {name: ids}

    @hookimpl
    def trusted_examples(self):
        return self._trusted


def test_trusted_examples_come_from_all_parts():
    parts = {"one": Trusting("other", torch.tensor([2])), "two": Trusting(None, None)}
    sets = MethodHooks(Trusting("dictionary", torch.tensor([3, 1])), "mine", components=parts).trusted_examples()
    assert {name: ids.tolist() for name, ids in sets.items()} == {"dictionary": [3, 1], "other": [2]}


@pytest.mark.parametrize("wrong", [[1, 2], torch.tensor([True, False]), torch.tensor([[1]]), torch.tensor([1.0])])
def test_trusted_examples_that_are_no_positions_are_an_error(wrong):
    with pytest.raises(UserError, match=r"^method 'mine': trusted_examples gave 'good', which is no tensor of int64"):
        MethodHooks(Trusting("good", wrong), "mine").trusted_examples()


def test_no_hook_is_told_true_labels():
    arguments = {name for hook in vars(Hooks).values() if callable(hook) for name in hook.__code__.co_varnames}
    assert not {name for name in arguments if "corrupt" in name or "true" in name or "clean" in name}


class Stateful:
    """A plugin whose state is the tensor that it was made with."""

    def __init__(self, value):
        self.value = torch.tensor(value)

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_state_of_plugins_has_their_names_before_it():
    def make(*values):
        plugins = [Stateful(value) for value in values]
        # the name of one begins with that of another
        hooks = MethodHooks(plugins[0], "mine", components={"mine.value": plugins[1], "without": object()})
        return hooks, plugins

    saved, _ = make(1, 2)
    state = saved.state_dict()
    assert state == {"mine.value": 1, "mine.value.value": 2}
    other, plugins = make(3, 4)
    other.load_state_dict(state)
    assert [plugin.value.item() for plugin in plugins] == [1, 2]


@pytest.mark.parametrize("hook", ["plan_stages", "provide_meta_set", "generate_weights"])
def test_two_implementations_of_a_hook_with_one_result_are_refused(hook):
    functions = {
        "plan_stages": lambda self, stage: [stage],
        "provide_meta_set": lambda self, held_out: held_out,
        "generate_weights": lambda self, step: step.losses,
    }
    part = type("Part", (), {hook: hookimpl(functions[hook])})
    with pytest.raises(UserError, match=f"{hook} is implemented by method 'mine' and by component 'one'"):
        MethodHooks(part(), "mine", components={"one": part()})


def test_a_batch_that_is_made_anew_is_still_of_its_set():
    class Anew:
        @hookimpl
        def transform_batch(self, batch):
            return Batch(batch.ids, batch.inputs + 1, batch.labels)

    trusted = torch.arange(N) > 1
    of_both = attrs.evolve(BATCH, source="both", trusted=trusted)
    found = MethodHooks(Anew(), "anew").transform_batch(of_both)
    assert (found.source, found.trusted) == ("both", trusted)
    assert torch.equal(found.inputs, BATCH.inputs + 1)


def test_two_plugins_with_a_figure_of_one_name_are_told():
    class Counting:
        @hookimpl
        def finish_epoch(self, epoch):
            return {"count": 1}

    hooks = MethodHooks(Counting(), "erm", components={"other": Counting()})
    with pytest.raises(UserError, match="gives a figure 'count', but there is one of this name"):
        hooks.finish_epoch(1)


def test_pluggys_older_kind_of_wrapper_is_refused_by_name():
    class Older:
        @hookimpl(hookwrapper=True)
        def transform_batch(self, batch):
            yield

    with pytest.raises(UserError, match="component 'older': transform_batch is a hookwrapper"):
        MethodHooks(ERM, "erm", components={"older": Older()})


def test_a_plugin_may_be_a_module_of_torch():
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        @hookimpl
        def transform_batch(self, batch):
            return attrs.evolve(batch, inputs=batch.inputs + 2)

    assert torch.equal(MethodHooks(Module(), "module").transform_batch(BATCH).inputs, BATCH.inputs + 2)
