"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), in the form that MW-Net uses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from reweight_core.models.cifar_resnet import conv3x3


class WideResNet(nn.Module):
    """Pre-activation wide ResNet, WRN-depth-width, with 1x1 convolutions where a shortcut changes shape.

    Images (n, channels, height, width) of any size to logits (n, num_classes). Convolutions start
    Kaiming-normal (fan-out).

    Args:
        input_shape: channels, height, width.
        num_classes: number of logits.
        depth: layers with weights, 6k+4 for k blocks in each of the three stages.
        width: the stages have 16, 32 and 64 times this many channels.
        dropout: probability of dropping an activation between the two convolutions of a block.

    Raises:
        ValueError: for any other depth.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, depth: int, width: int, dropout: float = 0.0):
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"the depth of a wide ResNet is 10, 16, 22, ... (6k+4), not {depth}")
        channels = 16
        self.conv = conv3x3(input_shape[0], channels)
        blocks = []
        for filters, first_stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range((depth - 4) // 6):
                blocks.append(WideBlock(channels, filters, first_stride if i == 0 else 1, dropout))
                channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = F.relu(self.norm(self.blocks(self.conv(images))))
        return self.linear(features.mean(dim=(2, 3)))


class WideBlock(nn.Module):
    """BN-ReLU-conv twice beside a shortcut: (n, c_in, h, w) to (n, c_out, h/stride, w/stride), rounded up."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, not activated."""
        activated = F.relu(self.norm1(x))
        residual = F.relu(self.norm2(self.conv1(activated)))
        residual = self.conv2(self.dropout(residual))
        # a shortcut with weights starts from the activated input, an identity from the raw one
        return residual + (x if self.shortcut is None else self.shortcut(activated))
