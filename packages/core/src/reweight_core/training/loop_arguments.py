"""What a loop of the user's own hands to the reweighter: refused where it cannot be."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from reweight_core.errors import UserError


def first_trained(model: nn.Module) -> nn.Parameter:
    """Return a parameter of a network that can be trained here."""
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
