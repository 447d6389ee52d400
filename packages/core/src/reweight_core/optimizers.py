"""The state of torch optimizers as flat, named tensors, which is how checkpoints hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

PREFIX = "optimizer"


def state_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the optimizer's tensors as ``optimizer.<parameter>.<quantity>``.

    Args:
        optimizer: the optimizer.
        names: names of its parameters, in the order in which it holds them.
    """
    tensors = {}
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        for quantity, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"{PREFIX}.{name}.{quantity}"] = value
    return tensors


def load_state_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Restore what `state_tensors` returned, into the tensors that exist already where they do."""
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        start = f"{PREFIX}.{name}."
        state = optimizer.state[parameter]
        for key, value in tensors.items():
            if key.startswith(start) and "." not in key.removeprefix(start):
                quantity = key.removeprefix(start)
                if quantity in state:
                    state[quantity].copy_(value)
                else:
                    state[quantity] = value.to(parameter.device, copy=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
