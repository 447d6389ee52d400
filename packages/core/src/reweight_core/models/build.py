"""From the name that a user gives to a network that is known to fit the data."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reweight_core.engine.head import find_head
from reweight_core.errors import UserError, nearest, reason
from reweight_core.models import torchvision_zoo
from reweight_core.models.cosine_head import CosineHead
from reweight_core.plugins import registry

HEADS: tuple[type[nn.Module], ...] = (nn.Linear, CosineHead)
"""The kinds of layers that a network's last one may be (``--head``)."""


def build_model(
    name: str, input_shape: tuple[int, ...], num_classes: int, head: Literal["linear", "cosine"] = "linear"
) -> nn.Module:
    """Build a network, in train mode, and try it on two empty images.

    Args:
        name: ``package.module:factory``, a model plugin, or one of torchvision's classification models.
        input_shape: channels, height, width.
        num_classes: number of logits C.
        head: ``cosine`` for a `CosineHead` in place of the last linear layer.

    Raises:
        UserError: if there is no such network, or it does not map such images to C logits, or cannot learn, or has no
            last linear layer to replace.

    A network that returns more than logits is left with them alone (`_logits_alone`).
    """
    build = _find(name)
    shape = "x".join(map(str, input_shape))
    try:
        model = build(input_shape, num_classes)
    except Exception as error:
        raise UserError(
            f"model '{name}' cannot be built for images of shape {shape} and {num_classes} classes: {reason(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"model '{name}' is of type {type(model).__name__}, not a torch.nn.Module")

    model.register_forward_hook(_logits_alone)
    # in eval mode, so that the trial leaves BatchNorm's statistics and the random state alone
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, *input_shape))
    except Exception as error:
        raise UserError(f"model '{name}' cannot process images of shape {shape}: {reason(error)}") from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, num_classes):
        raise UserError(
            f"model '{name}' must turn two images into logits of shape {(2, num_classes)}, but returns {found}"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"model '{name}' has no trainable parameters")
    if head == "cosine":
        _replace_head(model, name, torch.zeros(2, *input_shape))
    return model.train()


def _replace_head(model: nn.Module, name: str, images: Tensor) -> None:
    path = find_head(model, images)
    if path is None:
        raise UserError(f"--head cosine: model '{name}' does not end in a linear layer; give --head linear")
    linear = model.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    model.set_submodule(path, CosineHead(linear.in_features, linear.out_features))


def _logits_alone(model: nn.Module, inputs: Any, output: Any) -> Any:
    """Return the logits of a network that returns more: the field `logits` or `out`, or the first entry."""
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        if isinstance(output, Mapping) and name in output:
            return output[name]
        if hasattr(output, name):
            return getattr(output, name)
    return output[0] if isinstance(output, tuple | list) and output else output


def _find(name: str) -> Callable[[tuple[int, ...], int], Any]:
    if ":" in name:
        return _find_factory(name)
    plugins = registry.names("model")
    if name in plugins:
        return registry.find("model", name).build
    zoo = torchvision_zoo.names()
    if name in zoo:
        return partial(torchvision_zoo.build, name)
    raise UserError(
        f"no model is called '{name}'{nearest(name, [*plugins, *zoo])}; give one of {', '.join(plugins)}, "
        "a torchvision classification model, or package.module:factory"
    )


def _find_factory(name: str) -> Callable[[tuple[int, ...], int], Any]:
    module_name, _, attribute = name.partition(":")
    # console scripts, unlike `python -m`, do not search the current folder
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"model '{name}': cannot import '{module_name}': {reason(error)}") from error
    if not hasattr(module, attribute):
        raise UserError(f"model '{name}': module '{module_name}' has no '{attribute}'{nearest(attribute, dir(module))}")
    factory = getattr(module, attribute)

    def build(input_shape: tuple[int, ...], num_classes: int) -> Any:
        keywords = {"input_shape": input_shape, "num_classes": num_classes}
        return factory(**_accepted(factory, keywords))

    return build


def _accepted(factory: Callable[..., Any], keywords: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return keywords
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in keywords.items() if name in named}
