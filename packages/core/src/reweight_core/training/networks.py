"""The networks of a run: the architecture that its options ask for, with the initial weights that they ask for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from reweight_core.config.run_config import RunConfig
from reweight_core.data.dataset import Dataset
from reweight_core.data.prepare import PreparedData
from reweight_core.engine.head import find_head
from reweight_core.errors import UserError
from reweight_core.machine.device import memory_format
from reweight_core.models.build import HEADS, build_model
from reweight_core.models.initial import initialise, pretrained_weights, read_weights


def build_network(config: RunConfig, data: PreparedData, device: torch.device) -> nn.Module:
    """Build a network of a run on its device, in train mode; what begins untrained is drawn from torch's stream.

    Args:
        config: the options.
        data: what it is for.
        device: where it is to lie.

    Raises:
        UserError: if it does not fit the data, or the weights do not fit it.
    """
    dataset = data.dataset
    model = build_model(config.model, dataset.input_shape, len(dataset.classes), config.head)
    if dataset.has_features and any(isinstance(module, nn.Conv2d) for module in model.modules()):
        raise UserError(f"--model {config.model}: is for images, but the data are features; give --model linear or mlp")
    _initialise(model, config, dataset)
    return model.train().to(device).to(memory_format=memory_format(config.channels_last))


def _initialise(model: nn.Module, config: RunConfig, dataset: Dataset) -> None:
    if config.init_from is not None and config.pretrained:
        raise UserError("--init-from and --pretrained exclude each other; give --no-pretrained with --init-from")
    if config.init_from is not None:
        weights, source = read_weights(config.init_from), f"--init-from {config.init_from}"
    elif config.pretrained:
        weights, source = pretrained_weights(config.model), "--pretrained"
    else:
        return
    head = find_head(model, torch.zeros(2, *dataset.input_shape), HEADS)
    if not initialise(model, weights, head, source):
        warnings.warn(f"{source}: the last layer is another and begins untrained", stacklevel=2)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a stream of the run inside the block, and leave the process's own as it is."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
