"""What a loop of the user's own hands to the reweighter: refused where it cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from pkgutil import resolve_name
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from reweight_core.config.run_config import RunConfig
from reweight_core.engine.stage import Stage
from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.blame import blamed
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.imported import Imported

_ONLY_IN_A_RUN = {
    "plan_stages": "trains in stages of its own",
    "order_epoch": "gives the examples an order of its own",
    "final_model": "makes another network of a finished run",
}
"""Hook that a loop does not call -> what a plugin does by it."""


def refuse_before_build(config: RunConfig) -> None:
    """Raise `UserError` for a chosen plugin whose class shows that it needs a run."""
    chosen = [("method", config.method), ("loss", config.loss), *(("component", name) for name in config.with_)]
    for kind, name in chosen:
        built, whose = registry.find(kind, name).build, f"{kind} '{name}'"
        if isinstance(built, Imported):
            with blamed(whose, "build", built.target):
                built = resolve_name(built.target)
        for hook in _ONLY_IN_A_RUN if isinstance(built, type) else ():
            if hasattr(built, hook):
                raise _needs_a_run(whose, hook)


def refuse_what_only_a_run_has(hooks: MethodHooks, stage: Stage) -> None:
    """Raise `UserError` for built plugins that need a run; `stage` is the loop's one."""
    for hook in _ONLY_IN_A_RUN:
        whose = hooks.implementers(hook)
        if whose and (hook != "plan_stages" or hooks.plan_stages(stage) != [stage]):
            raise _needs_a_run(whose, hook)


def _needs_a_run(whose: str, hook: str) -> UserError:
    return UserError(
        f"{whose} {_ONLY_IN_A_RUN[hook]}, which a loop of your own does not have: use reweight train, or another method"
    )


def check_arguments(
    method: Any,
    loss: Any,
    model: Any,
    components: Any,
    new_model: Any,
    num_classes: Any,
    train_size: Any,
    epochs: Any,
    steps: Any,
) -> None:
    """Raise `UserError` for an argument of the `Reweighter` that is of another kind, or too small."""
    for what, given in (("method", method), ("loss", loss)):
        if not isinstance(given, str):
            raise UserError(f"{what}= must be a name (reweight list), but is a {type(given).__name__}")
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


_HOOKED: WeakKeyDictionary[torch.optim.Optimizer, list[RemovableHandle]] = WeakKeyDictionary()
"""What reweighters do around the steps of optimizers."""


def hook_in(
    optimizer: torch.optim.Optimizer, before: Callable[..., None] | None, after: Callable[..., None] | None
) -> None:
    """Call these before and after every step of an optimizer, in place of those of an earlier reweighter."""
    for handle in _HOOKED.pop(optimizer, []):
        handle.remove()
    handles = [] if before is None else [optimizer.register_step_pre_hook(before)]
    handles += [] if after is None else [optimizer.register_step_post_hook(after)]
    _HOOKED[optimizer] = handles


def tell_strange_epoch(batches: list[int], visits: Tensor) -> None:
    """Warn of an epoch without batches, or whose batches all had the same few ids.

    Args:
        batches: sizes of the epoch's batches.
        visits: how often each training example was seen so far, (N,).
    """
    if not batches:
        warnings.warn("epoch_ended: there was no batch since the last epoch", stacklevel=4)
    elif len(batches) > 1 and len(visits) > max(batches) and not visits[max(batches) :].any():
        warnings.warn(
            f"the batches had no other ids than 0 to {max(batches) - 1}, of {len(visits)} examples: ids are positions "
            "in the whole training set, not in the batch; let the dataset give them",
            stacklevel=4,
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
