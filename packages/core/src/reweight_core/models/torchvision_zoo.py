"""torchvision's classification models, untrained and fitted to the data."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn


def names() -> list[str]:
    """List torchvision's classification models."""
    return torchvision.models.list_models(module=torchvision.models)


def build(name: str, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build a torchvision model for images (n, channels, height, width), without pre-trained weights.

    When the images are not of three channels, the first convolution is replaced by one for theirs, with
    PyTorch's default initialisation.
    """
    channels, height, width = input_shape
    settings: dict[str, Any] = {}
    if name.startswith("vit_"):
        settings["image_size"] = height
    elif name.startswith("maxvit_"):
        settings["input_size"] = (height, width)
    elif name in ("googlenet", "inception_v3"):
        # auxiliary outputs come beside the logits in train mode; torchvision is about to drop the slow
        # initialisation that these two have by default
        settings.update(aux_logits=False, init_weights=False)
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **settings)
    if channels != 3:
        _replace_first_convolution(model, channels)
    return model


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    path, old = next((path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]  # typed as a tuple of any length
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        groups=old.groups,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    model.set_submodule(path, new)
