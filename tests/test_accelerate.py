"""A loop of accelerate with learned weights: accumulation, clipping and reduced precision are its own."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

from reweight_core import Reweighter

N = 16


@pytest.fixture(autouse=True)
def _its_state_ends_with_the_test():
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def trained(accelerator, steps=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(N, 5), torch.arange(N) % 4
    meta = (torch.randn(4, 5), torch.arange(4))
    prepared, wrapped = (model, optimizer) if accelerator is None else accelerator.prepare(model, optimizer)
    reweighter = Reweighter("mwnet", prepared, wrapped, num_classes=4, train_size=N, meta=meta, lookahead="jvp")
    for number in range(4):
        part = torch.arange(8) + 8 * (number % 2)
        if accelerator is None:
            (reweighter(x[part], y[part], part) / steps).backward()
            if number % 2:
                nn.utils.clip_grad_norm_(model.parameters(), 0.2)
                optimizer.step()
                optimizer.zero_grad()
            continue
        with accelerator.accumulate(prepared):
            accelerator.backward(reweighter(x[part], y[part], part))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(prepared.parameters(), 0.2)
            wrapped.step()
            wrapped.zero_grad()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_its_loop_is_that_of_pytorch():
    expected = trained(None)
    assert torch.equal(trained(Accelerator(cpu=True, gradient_accumulation_steps=2)), expected)


def test_its_reduced_precision_is_that_of_the_passes():
    expected = trained(None)
    found = trained(Accelerator(cpu=True, gradient_accumulation_steps=2, mixed_precision="bf16"))
    assert 0 < (found - expected).norm() / expected.norm() < 0.01
