import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reweight_core.errors import UserError
from reweight_core.models.cifar_resnet import CifarResNet
from reweight_core.models.wide_resnet import WideResNet
from reweight_core.passes import Passes


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


NETWORKS = {
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
    logits = passes.forward(torch.randn(shape, dtype=torch.float64))
    D = torch.randn(logits.shape, dtype=torch.float64)
    v = {key: torch.randn_like(p) for key, p in passes.parameters.items()}
    back = passes.pullback(D)
    assert sum((back[key] * v[key]).sum() for key in v).item() == pytest.approx(
        (D * passes.pushforward(v)).sum().item()
    )


def test_dropout1d_of_a_batch_of_vectors_drops_whole_rows_as_torch_does():
    passes = Passes(UnbatchedDropout(), torch.Generator().manual_seed(0))
    dropped = passes.forward(torch.ones(200, 3, 2, 2)) == 0
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
    passes.forward(torch.ones(3, 2))
    with pytest.raises(UserError, match="--lookahead double"):
        passes.pushforward({key: torch.ones_like(p) for key, p in passes.parameters.items()})
