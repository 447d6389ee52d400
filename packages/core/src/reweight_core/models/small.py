"""Small networks without BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn


class MLP(nn.Sequential):
    """Multilayer perceptron with ReLU: images of any shape to logits (n, num_classes).

    Without hidden layers it is one linear layer: logistic regression.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, hidden: Sequence[int] = (256, 256)):
        layers: list[nn.Module] = [nn.Flatten()]
        size = math.prod(input_shape)
        for units in hidden:
            layers += [nn.Linear(size, units), nn.ReLU()]
            size = units
        super().__init__(*layers, nn.Linear(size, num_classes))


class LeNet(nn.Sequential):
    """The network of L2RW's MNIST experiments (Ren et al., ICML 2018), with PyTorch's default initialisation.

    Images (n, channels, height, width) of any size to logits (n, num_classes).
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int):
        channels, height, width = input_shape
        layers: list[nn.Module] = []
        for filters in (16, 32, 64):
            layers += [
                nn.Conv2d(channels, filters, kernel_size=5, padding=2),
                nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
                nn.ReLU(),
            ]
            channels, height, width = filters, math.ceil(height / 2), math.ceil(width / 2)
        super().__init__(
            *layers,
            nn.Flatten(),
            nn.Linear(channels * height * width, 100),
            nn.ReLU(),
            nn.Linear(100, num_classes),
        )
