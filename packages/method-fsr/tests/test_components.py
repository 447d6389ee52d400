import attrs
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from reweight_core import Stage, UserError, hookimpl
from reweight_core.data.batch import Batch
from reweight_core.plugins import registry
from reweight_core.plugins.erm import ERM
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.testing import tiny_parts
from reweight_core.testing.method_suite import feed, run_fed, run_steps
from reweight_method_fsr.components.mixup import mixed
from reweight_method_fsr.components.relabel import normalised


def transformed(*components, **options):
    trainer = tiny_parts("erm", **{"with": components, **options})
    trainer.model.train()
    feed(trainer, 0)
    return trainer.step.open(10)


def test_the_own_image_and_target_have_the_share_lambda_of_at_least_a_half():
    step = transformed("mixup")
    x, y = step.original.inputs, F.one_hot(step.labels, 4).float()
    differ = 0
    for i in range(step.n):
        # the partner is the example that explains the rest of the image
        candidates = []
        for j in range(step.n):
            difference = x[i] - x[j]
            share = ((step.inputs[i] - x[j]) * difference).sum() / difference.square().sum().clamp(min=1e-12)
            candidates.append(((step.inputs[i] - x[j] - share * difference).norm(), share, j))
        error, share, j = min(candidates, key=lambda c: c[0])
        if torch.allclose(step.inputs[i], x[i], atol=1e-6):
            torch.testing.assert_close(step.targets[i], y[i])
            continue
        differ += 1
        assert error < 1e-4
        assert 0.5 <= share <= 1
        torch.testing.assert_close(step.targets[i], share * y[i] + (1 - share) * y[j], atol=1e-4, rtol=1e-4)
    assert differ > step.n / 2


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_mean_share_of_mixup_is_that_of_its_distribution(alpha):
    component = tiny_parts("erm", **{"with": ("mixup",), "mixup_alpha": alpha}).hooks.plugins["mixup"]
    batch = Batch(torch.arange(20_000), torch.zeros(20_000, 1, 1, 1), torch.arange(20_000) % 4)
    hooks = MethodHooks(object(), "none", [], {"mixup": component})
    own = hooks.transform_batch(batch).targets.gather(1, batch.labels[:, None])
    # a partner of the same class, one in four, adds its share to the own class's
    mean = 1 - alpha / (1 + alpha) / 2
    assert own.mean().item() == pytest.approx(mean + (1 - mean) / 4, abs=0.01)
    assert own.min() >= 0.5


@given(st.permutations(range(5)), st.lists(st.floats(0.5, 1), min_size=5, max_size=5))
def test_mixing_is_the_convex_combination(partner, share):
    rows, partner, share = torch.randn(5, 3), torch.tensor(partner), torch.tensor(share)
    torch.testing.assert_close(
        mixed(rows, rows[partner], share), share[:, None] * rows + (1 - share[:, None]) * rows[partner]
    )


def test_smoothing_moves_a_share_of_each_target_to_all_classes():
    step = transformed("label-smoothing", label_smoothing_amount=0.2)
    y = F.one_hot(step.labels, 4).float()
    torch.testing.assert_close(step.targets, 0.8 * y + 0.05)
    # the loss is that of torch with smoothed labels
    torch.testing.assert_close(
        step.losses, F.cross_entropy(step.logits, step.labels, label_smoothing=0.2, reduction="none")
    )
    torch.testing.assert_close(step.D, (step.logits.softmax(1) - step.targets) / step.n)


def test_mixing_and_smoothing_give_the_same_in_both_orders():
    one, other = transformed("mixup", "label-smoothing"), transformed("label-smoothing", "mixup")
    torch.testing.assert_close(one.targets, other.targets)
    assert torch.equal(one.inputs, other.inputs)


def test_components_act_in_the_order_of_the_command_line():
    class Add:
        def __init__(self, number):
            self.number = number

        @hookimpl(wrapper=True)
        def transform_batch(self, batch):
            batch = yield
            return attrs.evolve(batch, inputs=batch.inputs * 10 + self.number)

    hooks = MethodHooks(object(), "none", [], {"one": Add(1), "two": Add(2)})
    batch = Batch(torch.arange(1), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert hooks.transform_batch(batch).inputs.item() == 12


def test_relabelling_adds_the_gradient_of_its_loss_to_the_real_update_only():
    trainer = tiny_parts("erm", **{"with": ("relabel",), "relabel_warmup_epochs": 0, "relabel_multiplier": 3.0})
    component = trainer.hooks.plugins["relabel"]
    trainer.model.train()
    run_steps(trainer, 2)
    A = component._average.clone()
    feed(trainer, 1)
    step = trainer.step.open(10)
    D_prime = trainer.hooks.manipulate_gradient(step, torch.ones(10))
    logits = step.logits.clone().requires_grad_()
    rows = A[step.ids] * (A[step.ids].square().mean() + 1e-8).rsqrt()
    loss = F.cross_entropy(logits, step.labels) + 3 * F.cross_entropy(logits, rows.softmax(1))
    loss.backward()
    torch.testing.assert_close(D_prime, logits.grad)
    # what a look-ahead would see is D alone
    torch.testing.assert_close(step.D, (step.probabilities - step.one_hot) / 10)


def test_before_its_epoch_relabelling_gathers_logits_without_adding_anything():
    plain, waiting = tiny_parts("erm"), tiny_parts("erm", **{"with": ("relabel",), "relabel_warmup_epochs": 1})
    for trainer in (plain, waiting):
        run_steps(trainer, 3)
    assert all(map(torch.equal, plain.model.parameters(), waiting.model.parameters()))
    assert waiting.hooks.plugins["relabel"]._average.abs().sum() > 0
    waiting.hooks.finish_epoch(1, {})
    for trainer in (plain, waiting):
        run_steps(trainer, 4, first=3)
    assert not all(map(torch.equal, plain.model.parameters(), waiting.model.parameters()))


def test_logits_are_divided_by_the_root_of_their_mean_square_and_1e_8():
    # (3^2 + 4^2)/4 = 6.25; far below 1e-4 the 1e-8 decides, as in the official code
    logits = torch.tensor([[3.0, 4], [0, 0]])
    torch.testing.assert_close(normalised(logits, torch.tensor(6.25)), torch.tensor([[1.2, 1.6], [0, 0]]))
    tiny = torch.full((2, 2), 1e-9)
    torch.testing.assert_close(normalised(tiny, tiny.square().mean()), torch.full((2, 2), 1e-5), rtol=1e-3, atol=0)


def test_an_example_that_was_never_seen_has_a_uniform_pseudo_label():
    assert normalised(torch.zeros(3, 4), torch.zeros(())).softmax(1).eq(0.25).all()


def test_averaged_weights_follow_their_recursion_and_statistics_are_those_of_training():
    trainer = tiny_parts("erm", **{"with": ("ema",), "ema_decay": 0.3})
    expected = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for t in range(4):
        run_steps(trainer, t + 1, first=t)
        decay = min(0.3, (1 + t) / (10 + t))
        for name, p in trainer.model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    averaged = trainer.hooks.evaluation_model(trainer.model)
    assert averaged is not trainer.model
    for name, p in averaged.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name])
        assert not torch.equal(p, trainer.model.get_parameter(name))
    for name, buffer in averaged.named_buffers():
        assert torch.equal(buffer, trainer.model.get_buffer(name))


def test_averaging_begins_anew_with_a_stage_that_begins_with_another_network():
    parts = tiny_parts("erm", **{"with": ("ema",), "ema_decay": 0.9})
    run_steps(parts, 3)
    restarted = {name: p.detach().clone() for name, p in parts.model.named_parameters()}
    parts.hooks.begin_stage(Stage("second", 1, 0.1))
    averaged = dict(parts.hooks.evaluation_model(parts.model).named_parameters())
    assert not any(torch.equal(averaged[name], p) for name, p in restarted.items())
    parts.hooks.begin_stage(Stage("third", 1, 0.1, start="initial"))
    averaged = dict(parts.hooks.evaluation_model(parts.model).named_parameters())
    assert all(torch.equal(averaged[name], p) for name, p in restarted.items())


@pytest.mark.parametrize("component", ["mixup", "label-smoothing"])
def test_a_method_for_one_label_an_example_refuses_mixed_targets(component, monkeypatch):
    original = registry.find
    strict = attrs.evolve(original("method", "erm"), one_label=True)
    monkeypatch.setattr(registry, "find", lambda kind, name: strict if kind == "method" else original(kind, name))
    with pytest.raises(UserError, match=f"--with {component}: method 'erm' is defined for one label an example"):
        tiny_parts("erm", **{"with": (component,)})


def test_a_component_with_state_by_training_example_is_refused_where_the_meta_set_is_trained_on(monkeypatch):
    monkeypatch.setattr(
        ERM, "plan_stages", hookimpl(lambda self, stage: [attrs.evolve(stage, source="meta")]), raising=False
    )
    with pytest.raises(UserError, match="--with relabel: keeps what it learns by training example"):
        tiny_parts("erm", **{"with": ("relabel",)})
    trainer = tiny_parts("erm", **{"with": ("mixup",)})
    trainer.model.train()
    feed(trainer, 0)
    run_fed(trainer)
