import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reweight_core import WeightingOptions
from reweight_core.config.weighting_options import rate_for
from reweight_core.plugins import erm
from reweight_core.testing import tiny_parts
from reweight_core.testing.exact_run import make_context


def make(dtype=torch.float64, seed=4, **options):
    context = make_context(dtype=dtype)
    torch.manual_seed(seed)
    return WeightingOptions(**{"weight_lr": 0.01, "weight_hidden": 20, **options}).build(context)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 30), min_size=1, max_size=20), st.sampled_from([torch.float32, torch.float64]))
def test_weights_lie_between_zero_and_one(losses, dtype):
    weights = make(dtype)(torch.tensor(losses, dtype=dtype))

    assert weights.shape == (len(losses),)
    assert weights.dtype == dtype
    assert ((weights > 0) & (weights < 1)).all()


def test_an_examples_weight_depends_on_its_own_loss_alone():
    V, losses = make(), torch.linspace(0, 5, 7, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(V, losses)

    assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
    assert jacobian.diagonal().ne(0).any()


def test_descending_follows_the_gradients_given():
    V = make()
    before = [p.detach().clone() for p in V.phi]
    V.descend([torch.ones_like(p) for p in V.phi])

    for p, old in zip(V.phi, before, strict=True):
        # the first step of Adam has the size of its rate, against the sign of the gradient
        torch.testing.assert_close(old - p, torch.full_like(p, 0.01), rtol=1e-6, atol=1e-6)


def test_weight_decay_pulls_towards_zero_and_the_hidden_layer_is_as_wide_as_asked_for():
    V = make(weight_l2=0.5, weight_hidden=7)
    before = [p.detach().clone() for p in V.phi]
    V.descend([torch.zeros_like(p) for p in V.phi])

    assert [tuple(p.shape) for p in V.phi] == [(7, 1), (7,), (1, 7), (1,)]
    assert all((p.abs() < old.abs()).all() for p, old in zip(V.phi, before, strict=True))


def test_a_restored_network_goes_on_bit_for_bit():
    saved, restored = make(), make(seed=5)
    for V in (saved, restored):
        # a first step makes Adam's state
        V.descend([torch.ones_like(p) for p in V.phi])
    restored.load_state_dict({name: tensor.clone() for name, tensor in saved.state_dict().items()})
    for V in (saved, restored):
        V.descend([torch.full_like(p, -0.5) for p in V.phi])

    assert all(map(torch.equal, saved.phi, restored.phi))


def test_defaults_are_those_of_the_official_code():
    options = WeightingOptions()

    assert (options.weight_l2, options.weight_hidden) == (1e-4, 100)


# digits take 14 steps an epoch, for 100 epochs; CIFAR 500, for 80
@pytest.mark.parametrize(("steps", "rate"), [(1, 1e-2), (1400, 1e-2), (2800, 5e-3), (14_000, 1e-3), (40_000, 1e-3)])
def test_the_default_rate_is_the_official_one_in_long_runs_and_up_to_ten_times_that_in_short_ones(steps, rate):
    assert rate_for(steps) == rate


@pytest.mark.parametrize(("options", "steps"), [({"epochs": 2}, 10), ({"epochs": 9, "steps": 7}, 7)])
def test_a_run_says_how_many_steps_it_takes(options, steps, monkeypatch):
    # 44 examples in batches of 10
    contexts = []
    record = attrs.evolve(erm.plugin, build=lambda config, context: contexts.append(context) or object())
    monkeypatch.setattr(erm, "plugin", record)
    tiny_parts("erm", model="mlp", **options)
    assert contexts[0].steps == steps
