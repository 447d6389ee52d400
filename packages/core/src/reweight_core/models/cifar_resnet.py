"""The residual networks for CIFAR of He et al., "Deep residual learning" (CVPR 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CifarResNet(nn.Module):
    """CIFAR ResNet (He et al., 2016, section 4.2) with parameter-free shortcuts (option A).

    Images (n, channels, height, width) of any size to logits (n, num_classes). Convolutions and the linear
    layer start Kaiming-normal (fan-in).

    Args:
        input_shape: channels, height, width.
        num_classes: number of logits.
        depth: layers with weights, 6k+2 for k blocks in each of the three stages.

    Raises:
        ValueError: for any other depth.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, depth: int):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"the depth of a CIFAR ResNet is 8, 14, 20, ... (6k+2), not {depth}")
        channels = 16
        self.conv = conv3x3(input_shape[0], channels)
        self.norm = nn.BatchNorm2d(channels)
        blocks = []
        for filters in (16, 32, 64):
            for _ in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels, filters, stride=1 if filters == channels else 2))
                channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.blocks(F.relu(self.norm(self.conv(images))))
        return self.linear(features.mean(dim=(2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (n, c_in, h, w) to (n, c_out, h/stride, w/stride), rounded up.

    The shortcut is x at every stride-th pixel, with zeros in the added channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, after its ReLU."""
        residual = F.relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(residual + F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels)))


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Make a 3x3 convolution without bias that keeps the size of the images, but for its stride."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
