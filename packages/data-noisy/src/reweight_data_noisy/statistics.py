"""Mean and standard deviation of the training data, by channel."""

from __future__ import annotations

import numpy as np


def mean_and_std(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation (1 if it is constant), of uint8 or float32 (N, C, H, W)."""
    if images.dtype != np.uint8:
        deviations = images.std(axis=(0, 2, 3), dtype=np.float64)
        means = images.mean(axis=(0, 2, 3), dtype=np.float64)
        return tuple(map(float, means)), tuple(float(deviation) or 1.0 for deviation in deviations)
    return _of_pixels(images)


def _of_pixels(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Count pixels by value: exact, and without a copy of all images in floating point."""
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
