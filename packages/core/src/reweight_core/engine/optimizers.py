"""The optimizers of a run: how they are made, their steps and virtual steps, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from reweight_core.engine.state import part_of, prefixed
from reweight_core.engine.virtual_step import VirtualAdam, VirtualSGD, VirtualStep
from reweight_core.errors import UserError


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
        return virtual_step_of(optimizer, optimizer.param_groups[0], lr)


def virtual_step_of(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], lr: Tensor) -> VirtualStep:
    """Return the step that an optimizer of torch's takes for one of its groups of parameters, as a virtual one.

    Args:
        optimizer: the optimizer.
        group: one of its ``param_groups``.
        lr: learning rate, a tensor without dimensions.

    Raises:
        UserError: if it is none of SGD, Adam and AdamW, or has options whose step is not known here.
    """
    unknown = [name for name in ("nesterov", "dampening", "amsgrad", "maximize") if group.get(name)]
    if type(optimizer) is torch.optim.SGD and not unknown:
        return VirtualSGD(lr, group["momentum"], group["weight_decay"], optimizer.state)
    decoupled = type(optimizer) is torch.optim.AdamW
    if (decoupled or type(optimizer) is torch.optim.Adam) and not unknown:
        decay = group["weight_decay"]
        return VirtualAdam(lr, group["betas"], group["eps"], decay, decoupled=decoupled, state=optimizer.state)
    raise UserError(
        f"--virtual-step optimizer: the step of {type(optimizer).__name__}"
        f"{' with ' if unknown else ''}{', '.join(unknown)} cannot be taken virtually; use --virtual-step plain"
    )


class NamedOptimizer:
    """An optimizer of tensors by name, for steps that may be recorded: their gradients keep their addresses.

    Args:
        parameters: leaf tensors by name.
        settings: how they are optimized.
        lr: learning rate, a tensor without dimensions.

    Attributes:
        torch_optimizer: torch's own.
    """

    def __init__(self, parameters: Mapping[str, Tensor], settings: OptimizerSettings, lr: Tensor):
        self._parameters, self._max_grad_norm = dict(parameters), settings.max_grad_norm
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self.torch_optimizer = settings.build(list(parameters.values()), lr)

    def zero_grad(self) -> None:
        """Set the gradients to 0, in place."""
        self.torch_optimizer.zero_grad(set_to_none=False)

    def step(self) -> None:
        """Clip the gradients, if they are to be, and take a step along them."""
        if self._max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._max_grad_norm)
        self.torch_optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the optimizer remembers, as ``PARAMETER.QUANTITY``."""
        return state_tensors(self.torch_optimizer, list(self._parameters))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        load_state_tensors(self.torch_optimizer, list(self._parameters), state)


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


@torch.no_grad()
def load_state_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Restore what `state_tensors` returned, into the tensors that exist already where they do."""
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        # a name with a dot is a quantity of a parameter below this one
        saved = {quantity: value for quantity, value in part_of(tensors, name).items() if "." not in quantity}
        state = optimizer.state[parameter]
        for quantity, value in saved.items():
            if quantity in state:
                state[quantity].copy_(value)
            elif value.shape == parameter.shape:
                # in the parameter's order of memory, which fused steps go through as it lies there
                state[quantity] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            else:
                state[quantity] = value.to(parameter.device, copy=True)
        for quantity, value in state.items():
            # state that did not exist yet is state of zeros, for every optimizer used here
            if isinstance(value, Tensor) and quantity not in saved:
                value.zero_()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
