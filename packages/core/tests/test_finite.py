import pytest
import torch

from reweight_core.engine.finite import QUANTITIES, Health
from reweight_core.errors import UserError
from reweight_core.testing import Recorder

GOOD = torch.ones(3)


def note(health, **quantities):
    health.note(**{name: GOOD for name in ("losses", "weights", "gradient")} | {"meta_loss": None} | quantities)


@pytest.fixture
def health():
    return Health(torch.device("cpu"))


def test_finite_steps_pass(health):
    for _ in range(5):
        note(health, meta_loss=torch.tensor(1e30))
    health.check()


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("name", ["losses", "weights", "gradient", "meta_loss"])
def test_the_first_bad_step_and_quantity_are_named(health, name, bad):
    note(health)
    note(health, **{name: torch.tensor([1.0, bad])})
    note(health, losses=torch.tensor([torch.nan]))
    with pytest.raises(UserError, match=f"^step 2: the {name.replace('_', ' ')} became infinite or not a number"):
        health.check()


def test_the_cause_comes_before_its_effects(health):
    note(health, gradient=torch.tensor(torch.nan), losses=torch.tensor(torch.nan))
    with pytest.raises(UserError, match="step 1: the losses"):
        health.check()


def given_by(**hooks):
    return lambda hook: hooks.get(hook, "")


@pytest.mark.parametrize(
    ("step", "bad", "told"),
    [
        (1, "losses", "; look at the data and the initial weights"),
        (2, "losses", "; lower --lr"),
        (1, "weights", " (method 'mine': generate_weights); report it to the plugin's author"),
        (2, "weights", " (method 'mine': generate_weights); lower --lr, or report it to the plugin's author"),
        (2, "gradient", "; lower --lr"),
    ],
)
def test_a_learning_rate_is_not_blamed_for_the_first_step_and_a_plugin_is_named(health, step, bad, told):
    for _ in range(step - 1):
        note(health)
    note(health, **{bad: torch.tensor([torch.nan])})
    with pytest.raises(UserError) as caught:
        health.check(given_by(generate_weights="method 'mine'"))
    assert str(caught.value) == f"step {step}: the {bad} became infinite or not a number{told}"


def test_noting_reads_nothing_back(health):
    with Recorder():
        note(health, weights=torch.tensor([torch.nan]))
    with pytest.raises(UserError, match="weights"):
        health.check()


@pytest.mark.parametrize("name", QUANTITIES)
def test_whoever_gave_it_is_asked_for_by_a_hook(health, name):
    def implementers(hook):
        assert hook
        return f"plugin of {hook}"

    note(health, **{name: torch.tensor(torch.nan)})
    with pytest.raises(UserError, match=f"step 1: the {name.replace('_', ' ')} became"):
        health.check(implementers)
