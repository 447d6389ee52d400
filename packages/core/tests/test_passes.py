import copy
from contextlib import nullcontext

import pytest
import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from reweight_core.engine.passes import Passes
from reweight_core.engine.tangent_rules import TangentRules
from reweight_core.errors import UserError
from reweight_core.models.cifar_resnet import CifarResNet
from reweight_core.models.wide_resnet import WideResNet


class PartlyDetached(nn.Module):
    """The first layer acts on the logits, but gets no gradient of its own from one of two paths."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden = torch.tanh(self.first(x.flatten(1)))
        with torch.no_grad():
            gate = torch.sigmoid(hidden * 3)
        return self.second(hidden * gate)


class UnbatchedDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 3)

    def forward(self, x):
        return F.dropout1d(self.linear(x.flatten(1)), 0.5)


class ByKeyword(nn.Module):
    """Calls operators by keyword, and layers twice."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = F.conv2d(input=x, weight=self.convolution.weight, bias=self.convolution.bias, padding=1)
        x = F.batch_norm(input=x, running_mean=None, running_var=None, weight=self.norm.weight, training=True)
        x = self.convolution(torch.relu(input=x)).relu_().flatten(1)
        return self.second(F.linear(input=F.relu(input=self.first(x)), weight=self.first.weight))


class RectifiedInPlace(nn.Module):
    """Rectifies a tensor in place and goes on with that tensor, not with what was returned."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.first(x.flatten(1))
        F.relu(hidden, inplace=True)
        return self.second(hidden)


NETWORKS = {
    "operators by keyword": ByKeyword,
    "ReLU in place": RectifiedInPlace,
    "CIFAR ResNet": lambda: CifarResNet((3, 8, 8), 3, 8),
    "wide ResNet with dropout": lambda: WideResNet((3, 8, 8), 3, depth=10, width=1, dropout=0.3),
    "a region without gradient": PartlyDetached,
    "dropout of whole rows": UnbatchedDropout,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_two_products_are_adjoint(name):
    torch.manual_seed(0)
    shape = (5, 3, 8, 8) if "ResNet" in name else (5, 3, 2, 2)
    passes = Passes(NETWORKS[name]().double().train(), torch.Generator().manual_seed(1))
    passes.begin(torch.randn(shape, dtype=torch.float64))
    logits = passes.forward()
    D = torch.randn(logits.shape, dtype=torch.float64)
    v = {key: torch.randn_like(p) for key, p in passes.parameters.items()}
    back = passes.pullback(D)
    assert sum((back[key] * v[key]).sum() for key in v).item() == pytest.approx(
        (D * passes.pushforward(v)).sum().item()
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_real_pass_is_the_same_alone_and_with_the_product_on_its_way(name):
    torch.manual_seed(0)
    shape = (5, 3, 8, 8) if "ResNet" in name else (5, 3, 2, 2)
    images = torch.randn(shape, dtype=torch.float64)
    model = NETWORKS[name]().double().train()
    alone, along = (Passes(copy.deepcopy(model), torch.Generator().manual_seed(1)) for _ in range(2))
    v = {key: torch.randn_like(p) for key, p in alone.parameters.items()}
    alone.begin(images)
    along.begin(images)
    logits = alone.forward().detach()
    product = alone.pushforward(v)
    torch.testing.assert_close(along.pushforward(v), product)
    torch.testing.assert_close(along.forward().detach(), logits)
    D = torch.randn(logits.shape, dtype=torch.float64)
    alone.backward(D)
    along.backward(D)
    for key in v:
        torch.testing.assert_close(along.parameters[key].grad, alone.parameters[key].grad)
    for found, expected in zip(along._model.buffers(), alone._model.buffers(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("frozen", ["weight", "bias", "both"])
@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(3, 4, 3, stride=2, groups=1), nn.Linear(5, 4), nn.BatchNorm2d(3)],
    ids=["conv", "linear", "norm"],
)
def test_the_rules_of_layers_agree_with_torchs_where_parameters_are_frozen(layer, frozen):
    layer = copy.deepcopy(layer).double().train()
    x, moved = (torch.randn(6, 3, 5, 5, dtype=torch.float64) for _ in range(2))
    tangents = {n: torch.randn_like(p) for n, p in layer.named_parameters() if frozen not in (n, "both")}

    def product(rules):
        with fwad.dual_level(), rules:
            duals = {n: fwad.make_dual(dict(layer.named_parameters())[n], t) for n, t in tangents.items()}
            return fwad.unpack_dual(F.relu(functional_call(layer, duals, (fwad.make_dual(x, moved),)))).tangent.detach()

    torch.testing.assert_close(product(TangentRules()), product(nullcontext()))


class Scaled(nn.Module):
    """Divides by a number that its own pass changes, as spectral normalisation does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 3)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        self.scale.mul_(2)
        return self.linear(x.flatten(1)) / self.scale


def test_products_are_those_of_the_real_pass_where_it_changes_what_it_reads():
    passes = Passes(Scaled(), torch.Generator())
    images = torch.randn(4, 3, 2, 2)
    v = {name: torch.randn_like(p) for name, p in passes.parameters.items()}
    passes.begin(images, remembers=True)
    passes.forward()
    expected = (images.flatten(1) @ v["linear.weight"].T + v["linear.bias"]) / 2
    torch.testing.assert_close(passes.pushforward(v), expected)
    torch.testing.assert_close(passes.difference(v, 0.1), expected, rtol=1e-4, atol=1e-5)
    gradients = passes.gradients_at({}, images, lambda logits: torch.ones_like(logits))
    torch.testing.assert_close(gradients["linear.bias"], torch.full((3,), 4 / 2.0))


@pytest.mark.parametrize("length", [1e-3, 0.5])
def test_a_difference_is_taken_at_its_length_along_v(length):
    class Noting(RectifiedInPlace):
        """Keeps the parameters that it is called with."""

        def forward(self, x):
            seen.append(torch.cat([p.detach().flatten() for p in self.parameters()]))
            return super().forward(x)

    seen = []
    torch.manual_seed(0)
    passes = Passes(Noting().double(), torch.Generator())
    passes.begin(torch.randn(5, 12, dtype=torch.float64))
    # of very different norms, so that no other norm of all together is near
    v = {key: 10.0**k * torch.randn_like(p) for k, (key, p) in enumerate(passes.parameters.items())}
    passes.difference(v, length)
    here, there = seen
    direction = torch.cat([part.flatten() for part in v.values()])
    torch.testing.assert_close(there - here, length * direction / direction.norm(), rtol=1e-9, atol=1e-12)


def test_dropout1d_of_a_batch_of_vectors_drops_whole_rows_as_torch_does():
    passes = Passes(UnbatchedDropout(), torch.Generator().manual_seed(0))
    passes.begin(torch.ones(200, 3, 2, 2))
    dropped = passes.forward() == 0
    assert torch.equal(dropped.all(1), dropped.any(1))
    assert 60 < dropped.all(1).sum() < 140


def test_a_network_without_a_forward_mode_rule_is_an_error_that_names_the_way_out():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    class Net(nn.Linear):
        def forward(self, x):
            return Doubled.apply(super().forward(x))

    passes = Passes(Net(2, 2), torch.Generator())
    passes.begin(torch.ones(3, 2))
    with pytest.raises(UserError, match="--lookahead double"):
        passes.pushforward({key: torch.ones_like(p) for key, p in passes.parameters.items()})
