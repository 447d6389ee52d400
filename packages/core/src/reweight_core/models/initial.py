"""Initial weights of a network: from a safetensors file, or torchvision's pre-trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reweight_core.errors import UserError
from reweight_core.models import torchvision_zoo


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--init-from {path}: cannot be read as a safetensors file ({error})") from error


def pretrained_weights(name: str) -> dict[str, Tensor]:
    """Fetch torchvision's best weights of a model, or take them from its cache; their checksum is verified.

    Raises:
        UserError: if the model is none of torchvision's, or the download fails.
    """
    if name not in torchvision_zoo.names():
        raise UserError(
            f"--pretrained: '{name}' is not a model of torchvision, which the weights come from; give --no-pretrained"
        )
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        # weights_only: a file that holds anything but tensors is refused
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise UserError(
            f"--pretrained: cannot fetch {weights.url} ({error}); put the weights into a safetensors file by other "
            "means and give --init-from"
        ) from error
    # auxiliary classifiers, which are left out of the network
    return {key: tensor for key, tensor in state.items() if not key.lower().startswith("aux")}


def initialise(model: nn.Module, weights: Mapping[str, Tensor], head: str | None, source: str) -> bool:
    """Copy weights into a network; return whether its last layer was among them.

    The last layer keeps its own initial weights where its tensors are others, or where the weights have none.

    Args:
        model: the network.
        weights: tensors by the names of the network's own.
        head: path of the last linear layer, or None.
        source: where the weights are from, for messages.

    Raises:
        UserError: if names or other shapes do not fit.
    """
    own = model.state_dict()

    def shapes_of_head(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(t.shape) for name, t in tensors.items() if head and name.startswith(f"{head}.")}

    own_head, given_head = shapes_of_head(own), shapes_of_head(weights)
    fits = own_head == given_head
    wanted = {name: tensor for name, tensor in own.items() if fits or name not in own_head}
    given = {name: tensor for name, tensor in weights.items() if fits or name not in given_head}
    for name, tensor in wanted.items():
        if name not in given:
            raise UserError(f"{source}: has no '{name}', which the model needs")
        if given[name].shape != tensor.shape:
            raise UserError(
                f"{source}: '{name}' has shape {tuple(given[name].shape)}, the model's {tuple(tensor.shape)}"
            )
    unknown = sorted(given.keys() - wanted.keys())
    if unknown:
        raise UserError(f"{source}: has '{unknown[0]}', which the model does not ({len(unknown)} such tensors)")
    model.load_state_dict({**own, **given})
    return fits
