"""Mean and standard deviation of training images, by channel."""

from __future__ import annotations

import numpy as np

from reweight_core.data.stored import Stored

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Of photographs in red, green and blue: what networks trained on ImageNet expect."""


def mean_and_std(images: np.ndarray | Stored) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation (1 if it is constant), in pixel values of uint8 (N, C, H, W).

    Pixels are counted by value: exact, and without a copy of all images in floating point. Images that are read while
    training get ImageNet's.
    """
    if not isinstance(images, np.ndarray):
        return IMAGENET_MEAN, IMAGENET_STD
    means, deviations = [], []
    values = np.arange(256)
    for channel in range(images.shape[1]):
        # in parts, because bincount widens what it counts to eight bytes
        parts = np.array_split(images[:, channel], 64)
        share = sum(np.bincount(part.ravel(), minlength=256) for part in parts) / images[:, channel].size
        mean = float(share @ values)
        means.append(mean)
        deviations.append(float(np.sqrt(share @ (values - mean) ** 2)) or 1.0)
    return tuple(means), tuple(deviations)
