"""Labelled images on the training device, and batches of them: crop, flip and normalisation in one gather."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from reweight_core.dataset import Dataset, Split
from reweight_core.step import Batch


class BatchSource(Protocol):
    """Something that meta batches come from, in place of a set of examples that is gone through in random order."""

    def draw_batch(self) -> Batch:
        """Give the meta batch of a step. Called inside the step; its size is always the same."""


class Examples:
    """A split as one uint8 tensor on a device.

    Args:
        split: images and labels.
        dataset: how to normalise and augment.
        device: where the tensors lie.
        dtype: type of the batches.
        augment: ``none``, ``crop``, ``flip`` or ``crop-flip``; None for the dataset's own.
        memory_format: order of the batches in memory.

    Attributes:
        images: as given, uint8 (N, channels, height, width).
        labels: as given, int64 (N,).
        memory_format: as given.
    """

    def __init__(
        self,
        split: Split,
        dataset: Dataset,
        device: torch.device,
        dtype: torch.dtype,
        augment: str | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        augment = dataset.augment if augment is None else augment
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self._mean = torch.tensor(dataset.mean, dtype=dtype, device=device)[:, None, None]
        self._std = torch.tensor(dataset.std, dtype=dtype, device=device)[:, None, None]
        self.memory_format = memory_format
        self._padding = dataset.padding if augment in ("crop", "crop-flip") else 0
        self._reflect = dataset.padding_mode == "reflect"
        self._flip = augment in ("flip", "crop-flip")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, ids: Tensor, generator: torch.Generator | None) -> Batch:
        """Return the examples at positions `ids` (n,), augmented with draws from `generator` unless it is None."""
        if generator is None or not (self._padding or self._flip):
            images = self.images.index_select(0, ids)
        else:
            images = self._augmented(ids, generator)
        inputs = ((images.to(self._mean.dtype) - self._mean) / self._std).contiguous(memory_format=self.memory_format)
        return Batch(ids, inputs, self.labels.index_select(0, ids))

    def _augmented(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        _, channels, height, width = self.images.shape
        n, device, padding = len(ids), ids.device, self._padding

        def shifts() -> Tensor:
            return torch.randint(-padding, padding + 1, (n, 1), generator=generator, device=device)

        rows = torch.arange(height, device=device).expand(n, -1)
        columns = torch.arange(width, device=device).expand(n, -1)
        if padding:
            rows, columns = rows + shifts(), columns + shifts()
        if self._flip:
            flip = torch.rand((n, 1), generator=generator, device=device) < 0.5
            columns = torch.where(flip, width - 1 - columns, columns)
        outside = (rows < 0) | (rows >= height), (columns < 0) | (columns >= width)
        rows, columns = _into_range(rows, height, self._reflect), _into_range(columns, width, self._reflect)
        images = self.images[
            ids[:, None, None, None],
            torch.arange(channels, device=device)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
        if self._padding and not self._reflect:
            images = images.masked_fill((outside[0][:, :, None] | outside[1][:, None, :])[:, None], 0)
        return images


def _into_range(positions: Tensor, size: int, reflect: bool) -> Tensor:
    """Mirror positions at the borders (without repeating the border pixel), or clamp them."""
    if not reflect:
        return positions.clamp(0, size - 1)
    period = max(2 * (size - 1), 1)
    return (size - 1) - (positions % period - (size - 1)).abs()
