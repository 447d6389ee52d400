"""What a loop of the user's own hands to the reweighter: refused where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from reweight_core.errors import UserError


def check_arguments(
    model: Any, components: Any, new_model: Any, num_classes: Any, train_size: Any, epochs: Any, steps: Any
) -> None:
    """Raise `UserError` for an argument of the `Reweighter` that is of another kind, or too small."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model= must be a torch.nn.Module, but is a {type(model).__name__}")
    if isinstance(components, str):
        raise UserError(f"components= must be a list of names: components=['{components}']")
    if new_model is not None and not callable(new_model):
        raise UserError(
            f"new_model= must be a function without arguments that returns a network, but is a "
            f"{type(new_model).__name__}"
        )
    for name, value, least in (
        ("num_classes", num_classes, 2),
        ("train_size", train_size, 1),
        ("epochs", epochs, 1),
        ("steps", steps, 1),
    ):
        if value is None and name in ("epochs", "steps"):
            continue
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}= must be a whole number from {least} on, but is {value!r}")


def innermost(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer itself, which wrappers of other libraries have inside.

    Raises:
        UserError: if there is none, or its step takes several passes.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"optimizer= must be a torch.optim.Optimizer, but is a {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UserError("optimizer=: LBFGS computes the loss several times in a step: take another, SGD or Adam")
    return optimizer


def first_trained(model: nn.Module) -> nn.Parameter:
    """Return a parameter of a network that can be trained here."""
    if any(map(nn.parameter.is_lazy, [*model.parameters(), *model.buffers()])):
        raise UserError(
            "the model has lazy layers whose sizes are not known: run it on one batch first, then make optimizer and "
            "Reweighter"
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise UserError("the model has no parameter to train: every one is frozen (requires_grad=False)")
    if isinstance(model, nn.DataParallel):
        raise UserError("torch.nn.DataParallel: a look-ahead cannot go through its copies; use DistributedDataParallel")
    if any(hasattr(parameter, "full_tensor") for parameter in trained):
        raise UserError(
            "the model's parameters are sharded (FSDP), which a look-ahead cannot follow; use DistributedDataParallel"
        )
    return trained[0]


def refuse_change(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Raise `UserError` if the parameters that a network trains are no longer these."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if [*map(id, trained)] != [*map(id, parameters.values())]:
        raise UserError(
            "which parameters of the model are trained has changed: make the Reweighter anew (its state_dict keeps "
            "its state)"
        )


def refuse_state(theirs: Any, ours: Mapping[str, Any]) -> None:
    """Raise `UserError` if the reweighter of a state was made for something else (`theirs`) than this one (`ours`)."""
    if not isinstance(theirs, Mapping):
        raise UserError("load_state_dict: this is no state of a Reweighter: give what its state_dict() returned")
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise UserError(
                f"load_state_dict: the state is of a Reweighter with {name}={theirs.get(name)!r}, and this one has "
                f"{name}={value!r}: make it as that was made"
            )
