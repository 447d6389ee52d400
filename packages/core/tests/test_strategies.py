"""The ways to look ahead against each other and against torch's own optimizers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torchvision.models import VisionTransformer, resnet18

from reweight_core.data.batch import Batch
from reweight_core.engine.head import Head, find_head
from reweight_core.engine.lookahead import STRATEGIES, finite_difference
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.passes import Passes
from reweight_core.engine.step import Step
from reweight_core.engine.virtual_step import VirtualSGD
from reweight_core.models.cifar_resnet import CifarResNet
from reweight_core.models.small import MLP, LeNet
from reweight_core.models.wide_resnet import WideResNet

N, M, C, LR = 6, 5, 4, 0.1

ARCHITECTURES = {
    "linear": lambda: MLP((3, 8, 8), C, hidden=()),
    "mlp": lambda: MLP((3, 8, 8), C, hidden=(16, 16)),
    "lenet": lambda: LeNet((3, 8, 8), C),
    "resnet20": lambda: CifarResNet((3, 8, 8), C, 20),
    "wide resnet with dropout": lambda: WideResNet((3, 8, 8), C, depth=10, width=1, dropout=0.3),
    "torchvision's resnet18": lambda: resnet18(num_classes=C),
    "vision transformer": lambda: VisionTransformer(8, 4, 2, 2, 16, 32, num_classes=C),
}


class Problem:
    """One batch, one meta batch and a network, the same in every call."""

    def __init__(self, make, dtype=torch.float64, size=8):
        torch.manual_seed(0)
        self.model = make().to(dtype).train()
        for p in self.model.parameters():
            # torchvision starts the transformer's head at zero, which would hide the rest of the network
            if p.dim() == 2 and not p.any():
                nn.init.normal_(p, std=0.1)
        self.x, self.x_meta = (torch.randn(k, 3, size, size, dtype=dtype) for k in (N, M))
        self.y, self.y_meta = (torch.randint(C, (k,)) for k in (N, M))
        self.w = torch.rand(N, dtype=dtype)

    def in_double_precision(self):
        """The same numbers, as float64."""
        problem = copy.deepcopy(self)
        problem.model.double()
        problem.x, problem.x_meta, problem.w = (x.double() for x in (self.x, self.x_meta, self.w))
        return problem

    def step(self, strategy, update="plain", lean=False, optimizer=None, model=None):
        model = copy.deepcopy(self.model) if model is None else model
        head = find_head(model, self.x)
        passes = Passes(model, torch.Generator().manual_seed(1), head=head, lean=lean)
        lr = torch.tensor(LR, dtype=self.x.dtype)
        rule = VirtualSGD(lr) if update == "plain" else update
        meta = Batch(torch.arange(M), self.x_meta, self.y_meta)
        return Step(Batch(torch.arange(N), self.x, self.y), passes, lr, strategy, rule, lambda: meta)

    def gradient(self, strategy, update="plain", **options):
        """The derivative of the meta loss with respect to the weights of the examples."""
        w = self.w.clone().requires_grad_()
        step = self.step(strategy, update, **options)
        loss = step.meta_loss(w[:, None] * step.D)
        (gradient,) = torch.autograd.grad(loss, w)
        return gradient, loss.detach()


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_forward_mode_equals_double_backward(name):
    problem = Problem(ARCHITECTURES[name])
    (jvp, loss), (double, expected) = problem.gradient(STRATEGIES["jvp"]), problem.gradient(STRATEGIES["double"])
    assert relative(jvp, double) < 1e-10
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_single_precision_forward_mode_is_off_by_no_more_than_rounding(name):
    problem = Problem(ARCHITECTURES[name], torch.float32)
    (jvp, loss), (double, expected) = problem.gradient(STRATEGIES["jvp"]), problem.gradient(STRATEGIES["double"])
    exact, _ = problem.in_double_precision().gradient(STRATEGIES["double"])
    # what rounding does to double backward differs by network and initial weights (that of the transformer: 2e-7 to
    # 1e-5); more than this is a ReLU that rounding switches, which is the same in both
    rounding = min(max(relative(double.double(), exact), 4e-7), 4e-6)
    assert relative(jvp, double) < 5 * rounding
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_finite_differences_converge_to_forward_mode(name):
    problem = Problem(ARCHITECTURES[name])
    exact, _ = problem.gradient(STRATEGIES["jvp"])
    errors = [relative(problem.gradient(finite_difference(h))[0], exact) for h in (1e-3, 1e-8)]
    assert errors[1] < 1e-4
    assert errors[1] < errors[0] + 1e-6


@pytest.mark.parametrize("name", ["linear", "mlp", "resnet20", "vision transformer"])
def test_the_head_alone_equals_double_backward_through_the_head(name):
    problem = Problem(ARCHITECTURES[name])
    found, loss = problem.gradient(STRATEGIES["head"])
    model = copy.deepcopy(problem.model)
    head = find_head(model, problem.x)
    theta = {n: p for n, p in model.named_parameters() if n.startswith(head + ".")}
    w = problem.w.clone().requires_grad_()
    losses = F.cross_entropy(model(problem.x), problem.y, reduction="none")
    gradients = torch.autograd.grad((w * losses).mean(), list(theta.values()), create_graph=True)
    theta_hat = {n: p - LR * g for (n, p), g in zip(theta.items(), gradients, strict=True)}
    expected_loss = F.cross_entropy(functional_call(model, theta_hat, (problem.x_meta,)), problem.y_meta)
    (expected,) = torch.autograd.grad(expected_loss, w)
    assert relative(found, expected) < 1e-10
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-12)


def test_a_linear_network_is_its_head():
    problem = Problem(ARCHITECTURES["linear"])
    assert list(dict(problem.model.named_parameters())) == ["1.weight", "1.bias"]
    assert find_head(problem.model, problem.x) == "1"
    assert relative(problem.gradient(STRATEGIES["head"])[0], problem.gradient(STRATEGIES["double"])[0]) < 1e-10


def test_a_network_that_ends_otherwise_has_no_head():
    class Scaled(nn.Linear):
        pass

    ends = nn.Sequential(nn.Flatten(), nn.Linear(192, C), nn.Softplus())
    assert find_head(ends, torch.zeros(2, 3, 8, 8)) is None
    assert find_head(nn.Sequential(nn.Flatten(), Scaled(192, C)), torch.zeros(2, 3, 8, 8)) == "1"


OPTIMIZERS = {
    "sgd": (OptimizerSettings("sgd", 0.9, 5e-4, "optimizer"), torch.optim.SGD, {"momentum": 0.9}),
    "adam": (OptimizerSettings("adam", 0, 5e-4, "optimizer"), torch.optim.Adam, {}),
    "adamw": (OptimizerSettings("adamw", 0, 5e-4, "optimizer"), torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_virtual_step_is_the_one_that_the_optimizer_would_take(name, steps_before):
    settings, kind, options = OPTIMIZERS[name]
    problem = Problem(ARCHITECTURES["lenet"])
    lr = torch.tensor(LR, dtype=torch.float64)
    ours, theirs = copy.deepcopy(problem.model), copy.deepcopy(problem.model)
    optimizer = settings.build(list(ours.parameters()), lr)
    reference = kind(theirs.parameters(), lr=LR, weight_decay=5e-4, **options)

    def backward(model):
        model.zero_grad()
        (problem.w * F.cross_entropy(model(problem.x), problem.y, reduction="none")).mean().backward()

    for _ in range(steps_before):
        for model, stepping in ((ours, optimizer), (theirs, reference)):
            backward(model)
            stepping.step()
    rule = settings.build_virtual_step(optimizer, lr)
    looks = {}
    for strategy in ("jvp", "double"):
        w = problem.w.clone().requires_grad_()
        step = problem.step(STRATEGIES[strategy], rule, model=ours)
        look = step.look_ahead(w[:, None] * step.D)
        loss = look.close(F.cross_entropy(look.logits, problem.y_meta))
        looks[strategy] = look.parameters, torch.autograd.grad(loss, w)[0]
    backward(theirs)
    reference.step()
    for parameter_name, expected in theirs.named_parameters():
        for parameters, _ in looks.values():
            torch.testing.assert_close(parameters[parameter_name].detach(), expected.detach(), rtol=1e-9, atol=1e-12)
    assert relative(looks["jvp"][1], looks["double"][1]) < 1e-10


@pytest.mark.parametrize("strategy", ["jvp", "fd"])
def test_freeing_the_graph_meanwhile_changes_nothing(strategy):
    problem = Problem(ARCHITECTURES["wide resnet with dropout"])
    models, gradients = [], []
    for lean in (False, True):
        model = copy.deepcopy(problem.model)
        step = problem.step(STRATEGIES[strategy], lean=lean, model=model)
        w = problem.w.clone().requires_grad_()
        gradients.append(torch.autograd.grad(step.meta_loss(w[:, None] * step.D), w)[0])
        step._passes.backward(step.D)
        models.append(model)
    assert torch.equal(*gradients)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)
    for a, b in zip(models[0].buffers(), models[1].buffers(), strict=True):
        assert torch.equal(a, b)


def test_without_a_virtual_step_the_meta_batch_comes_first():
    problem, order = Problem(ARCHITECTURES["lenet"]), []
    step = problem.step(STRATEGIES["jvp"])
    for name in ("forward", "forward_at"):
        original = getattr(step._passes, name)
        setattr(step._passes, name, lambda *a, name=name, original=original: (order.append(name), original(*a))[1])
    w = problem.w.clone().requires_grad_()
    look = step.look_ahead(lambda: w[:, None] * step.D, virtual_step=False, unit_rate=True)
    look.close(F.cross_entropy(look.logits, problem.y_meta))
    assert order == ["forward_at", "forward"]


def test_bf16_passes_keep_residuals_and_products_in_single_precision():
    problem = Problem(ARCHITECTURES["resnet20"], torch.float32)
    exact, _ = problem.gradient(STRATEGIES["jvp"])
    model = copy.deepcopy(problem.model)
    passes = Passes(model, torch.Generator(), autocast=torch.bfloat16)
    meta = Batch(torch.arange(M), problem.x_meta, problem.y_meta)
    lr = torch.tensor(LR)
    batch = Batch(torch.arange(N), problem.x, problem.y)
    step = Step(batch, passes, lr, STRATEGIES["jvp"], VirtualSGD(lr), lambda: meta)
    w = problem.w.clone().requires_grad_()
    (found,) = torch.autograd.grad(step.meta_loss(w[:, None] * step.D), w)
    assert step.D.dtype == step.losses.dtype == found.dtype == torch.float32
    assert all(g.dtype == torch.float32 for g in passes.pullback(step.D).values())
    assert 0 < relative(found, exact) < 0.3


@pytest.mark.parametrize("also", [False, True], ids=["meta batch", "joint with other images"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
@pytest.mark.parametrize("name", ["lenet", "resnet20"])
def test_the_heads_look_ahead_equals_double_backward_through_the_head_alone(name, dtype, bound, also):
    problem = Problem(ARCHITECTURES[name], dtype)
    rate, decay, momentum = torch.tensor(0.1, dtype=dtype), 0.01, 0.9
    model = copy.deepcopy(problem.model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    # one step, so that there is momentum
    F.cross_entropy(model(problem.x), problem.y).backward()
    optimizer.step()
    optimizer.zero_grad()
    reference = copy.deepcopy(model)
    buffers = [optimizer.state[p]["momentum_buffer"].clone() for p in list(model.parameters())[-2:]]
    others = torch.randn(5, *problem.x.shape[1:], dtype=dtype) if also else None

    step = problem.step(STRATEGIES["jvp"], model=model)
    w = problem.w.clone().requires_grad_()
    look = step.look_ahead(
        lambda: w[:, None] * step.D,
        scope="head",
        update=VirtualSGD(rate, momentum, decay, optimizer.state),
        also=others,
    )
    (found,) = torch.autograd.grad(look.close(F.cross_entropy(look.logits[:M], problem.y_meta)), w)

    head = reference.get_submodule(find_head(reference, problem.x))
    kept = {}
    head.register_forward_pre_hook(lambda module, inputs: kept.update(z=inputs[0].detach()))
    reference(problem.x)
    weights = problem.w.clone().requires_grad_()
    losses = F.cross_entropy(head(kept.pop("z")), problem.y, reduction="none")
    gradients = torch.autograd.grad((weights * losses).mean(), [head.weight, head.bias], create_graph=True)
    moved = [
        p.detach() - rate * (g + decay * p.detach() + momentum * m)
        for p, g, m in zip((head.weight, head.bias), gradients, buffers, strict=True)
    ]
    images = problem.x_meta if others is None else torch.cat([problem.x_meta, others])
    reference(images)
    logits = kept.pop("z") @ moved[0].T + moved[1]
    (expected,) = torch.autograd.grad(F.cross_entropy(logits[:M], problem.y_meta), weights)
    assert relative(found, expected) < bound
    torch.testing.assert_close(look.logits.detach(), logits.detach(), rtol=10 * bound, atol=10 * bound)
    assert len(look.logits) == len(images)


def test_the_training_logits_after_the_heads_step_are_those_of_the_real_features():
    problem = Problem(ARCHITECTURES["resnet20"], torch.float64)
    model = copy.deepcopy(problem.model).train()
    step = problem.step(STRATEGIES["jvp"], model=model)
    look = step.look_ahead(step.D, scope="head")
    name = find_head(model, problem.x)
    moved = step._passes.features @ look.parameters[f"{name}.weight"].T + look.parameters[f"{name}.bias"]
    torch.testing.assert_close(look.training_logits, moved.detach())
    assert not torch.allclose(look.training_logits, step.logits)


def test_a_bias_of_the_head_that_is_not_trained_is_in_the_logits_all_the_same():
    problem = Problem(ARCHITECTURES["resnet20"], torch.float64)
    model = copy.deepcopy(problem.model).train()
    name = find_head(model, problem.x)
    head = model.get_submodule(name)
    head.bias.data.fill_(3.0)
    head.bias.requires_grad_(False)
    step = problem.step(STRATEGIES["head"], model=model)
    w = problem.w.clone().requires_grad_()
    look = step.look_ahead(w[:, None] * step.D, scope="head")
    weight = look.parameters[f"{name}.weight"]
    assert list(look.parameters) == [f"{name}.weight"]
    z, z_meta = step._passes.features, step._passes.features_at(step.meta.inputs)
    torch.testing.assert_close(look.logits, z_meta @ weight.T + 3)
    torch.testing.assert_close(look.training_logits, (z @ weight.T + 3).detach())
    (v,) = torch.autograd.grad(F.cross_entropy(z_meta @ weight.T + 3, problem.y_meta), weight)
    (found,) = torch.autograd.grad(look.close(F.cross_entropy(look.logits, problem.y_meta)), w)
    torch.testing.assert_close(found, -LR * (step.D * (z @ v.T)).sum(1))


def test_under_bf16_the_heads_products_are_in_single_precision():
    problem = Problem(ARCHITECTURES["resnet20"], torch.float32)
    model = copy.deepcopy(problem.model).train()
    name = find_head(model, problem.x)
    passes = Passes(model, torch.Generator(), autocast=torch.bfloat16, head=name)
    passes.begin(problem.x)
    D = torch.randn(N, C)
    found = Head(passes).pullback(D)[f"{name}.weight"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, D.T @ passes.features.float())
