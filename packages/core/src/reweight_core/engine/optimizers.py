"""The optimizers of a run: how they are made, their virtual step, and their state as flat, named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from reweight_core.engine.state import part_of, prefixed
from reweight_core.engine.virtual_step import VirtualAdam, VirtualSGD, VirtualStep


@attrs.frozen
class OptimizerSettings:
    """How the network is optimized.

    Attributes:
        name: ``sgd``, ``adam`` or ``adamw``.
        momentum: momentum of SGD.
        weight_decay: weight decay on all parameters.
        virtual_step: ``plain`` for plain SGD in the look-ahead, ``optimizer`` for a step of the optimizer itself,
            ``off`` for none.
        max_grad_norm: norm to which the gradient is clipped, or None.
    """

    name: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    virtual_step: str = "plain"
    max_grad_norm: float | None = None

    def build(self, parameters: Sequence[Tensor], lr: Tensor) -> torch.optim.Optimizer:
        """Make the optimizer; its rate is the tensor `lr`, so that a recorded step follows it."""
        if self.name == "sgd":
            return torch.optim.SGD(
                parameters, lr=lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
            )
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        # recordings need it, and it changes no number
        capturable = lr.device.type == "cuda"
        return kind(parameters, lr=lr, weight_decay=self.weight_decay, fused=True, capturable=capturable)

    def build_virtual_step(self, optimizer: torch.optim.Optimizer, lr: Tensor) -> VirtualStep | None:
        """Make the rule of the look-ahead's step for the optimizer that `build` made."""
        if self.virtual_step == "off":
            return None
        if self.virtual_step == "plain":
            return VirtualSGD(lr)
        if self.name == "sgd":
            return VirtualSGD(lr, self.momentum, self.weight_decay, optimizer.state)
        group = optimizer.param_groups[0]
        return VirtualAdam(
            lr, group["betas"], group["eps"], self.weight_decay, decoupled=self.name == "adamw", state=optimizer.state
        )


def state_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the optimizer's tensors as ``PARAMETER.QUANTITY``.

    Args:
        optimizer: the optimizer.
        names: names of its parameters, in the order in which it holds them.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        tensors |= prefixed(name, {q: v for q, v in optimizer.state[parameter].items() if isinstance(v, Tensor)})
    return tensors


def load_state_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Restore what `state_tensors` returned, into the tensors that exist already where they do."""
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        # a name with a dot is a quantity of a parameter below this one
        saved = {quantity: value for quantity, value in part_of(tensors, name).items() if "." not in quantity}
        state = optimizer.state[parameter]
        for quantity, value in saved.items():
            if quantity in state:
                state[quantity].copy_(value)
            else:
                state[quantity] = value.to(parameter.device, copy=True)
        for quantity, value in state.items():
            # state that did not exist yet is state of zeros, for every optimizer used here
            if isinstance(value, Tensor) and quantity not in saved:
                value.zero_()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
