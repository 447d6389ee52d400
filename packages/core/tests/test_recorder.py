import numpy as np
import pytest
import torch

from reweight_core.testing import HostReadError, Recorder

X = torch.tensor([3.0, 1.0, 2.0])


@pytest.mark.parametrize(
    "read",
    [
        lambda: X.sum().item(),
        lambda: bool(X[0] > 1),
        lambda: int(X.argmax()),
        lambda: X.tolist(),
        lambda: X.numpy(),
        lambda: np.asarray(X),
        lambda: X[X > 1],
        lambda: X.nonzero(),
        lambda: torch.equal(X, X),
        lambda: torch.unique(X),
        lambda: torch.bincount(X.long()),
        lambda: torch.repeat_interleave(X, X.long()),
        lambda: torch.nn.functional.one_hot(X.long()),
    ],
)
def test_reading_values_is_refused_inside_and_works_outside(read):
    with pytest.raises(HostReadError), Recorder():
        read()
    read()


def test_a_replay_repeats_the_operators_on_new_values():
    source, generator = torch.ones(4), torch.Generator().manual_seed(0)
    total = torch.zeros(4)
    with Recorder() as recorder:
        result = source * 2 + torch.rand(4, generator=generator)
        total.add_(result)
    source.fill_(10)
    first = result.clone()
    recorder.replay()
    expected = torch.Generator().manual_seed(0)
    draws = [torch.rand(4, generator=expected) for _ in range(2)]
    assert torch.equal(first, 2 + draws[0])
    assert torch.equal(result, 20 + draws[1])
    assert torch.equal(total, first + result)
