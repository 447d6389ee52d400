"""The tangent pass that takes values from the real pass: the same product, without the operators that it leaves out."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from reweight_core import registry
from reweight_core.engine.passes import Passes


class Block(nn.Module):
    """What networks do with a convolution's result: normalise, change in place, add to, drop."""

    def __init__(self, inplace=False, dropout=0.0, norm=True):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.relu, self.dropout = nn.ReLU(inplace=inplace), nn.Dropout(dropout)
        self.head, self.inplace = nn.Linear(4, 5), inplace

    def forward(self, x):
        x = self.dropout(self.relu(self.norm(self.first(x))))
        y = self.second(x)
        # no backward needs what a convolution returned, so that it may be changed
        y = y.add_(x) if self.inplace else y + x
        return self.head(F.gelu(self.norm(y)).mean((2, 3)))


class Changing(Block):
    """Does more at every second call, by a number that nobody can see."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(F.relu(x) if self.calls % 2 else x)


class Counted(TorchDispatchMode):
    """Counts convolutions that are computed."""

    convolutions = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.convolutions += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def products(model, images):
    """J v with values of the real pass, and J v of a pass that computes them again."""
    found = []
    v = {name: torch.randn_like(p) for name, p in model.named_parameters() if p.requires_grad}
    for remembers in (True, False):
        passes = Passes(model, torch.Generator().manual_seed(1))
        passes.begin(images, remembers)
        passes.forward()
        with Counted() as counted:
            found.append((passes.pushforward(v), counted.convolutions))
    return found


@pytest.mark.parametrize(
    "model",
    [Block(), Block(norm=False), Block(inplace=True), Block(dropout=0.5), Block(inplace=True, norm=False)],
    ids=["plain", "without norm", "in place", "dropout", "in place without norm"],
)
@pytest.mark.parametrize(
    "frozen", [(), ("first.weight",), ("norm.weight", "norm.bias"), ("second.weight", "head.bias")]
)
def test_the_product_is_that_of_a_pass_that_computes_everything(model, frozen):
    model = model.double().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    (found, _), (expected, _) = products(model, torch.randn(6, 3, 5, 5, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_on_a_network_of_torchvision():
    model = models.mobilenet_v3_small(num_classes=10).double().train()
    (found, _), (expected, _) = products(model, torch.randn(2, 3, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_what_the_real_pass_computed_is_not_computed_again():
    model = registry.find("model", "resnet20").build((3, 8, 8), 10).train()
    (found, with_memory), (expected, without) = products(model, torch.randn(6, 3, 8, 8))
    assert torch.equal(found, expected)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    # of the first one only the weight has a tangent
    assert with_memory == 2 * convolutions - 1
    assert without == 3 * convolutions - 1


def test_a_network_that_does_something_else_the_second_time_has_its_product_there():
    images = torch.randn(6, 3, 5, 5)
    model = Changing().train()
    v = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    passes = Passes(model, torch.Generator())
    passes.begin(images, remembers=True)
    passes.forward()
    found = passes.pushforward(v)
    # the real pass is the first call, the one that is given up the second, this one the third
    rectified = Passes(model, torch.Generator())
    rectified.begin(images.relu())
    model.calls = 1
    rectified.forward()
    model.calls = 1
    torch.testing.assert_close(found, rectified.pushforward(v))


def test_nothing_is_kept_that_autograd_does_not_keep():
    model = Block(norm=False).train()
    results = []
    model.first.register_forward_hook(lambda module, inputs, output: results.append(weakref.ref(output)))
    passes = Passes(model, torch.Generator())
    passes.begin(torch.randn(6, 3, 5, 5), remembers=True)
    logits = passes.forward()
    gc.collect()
    # the rectifier's backward takes its own result
    assert results[0]() is None
    del logits
