"""Labelled images, on the training device or stored elsewhere, and batches of them: crop, flip, normalisation."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from reweight_core.data.augmentations import Augmentation
from reweight_core.data.batch import Batch
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.reader import ReadRequest, read_ahead, reads_ahead
from reweight_core.data.rows import FeatureRows, exact_type
from reweight_core.data.stored import Stored
from reweight_core.errors import UserError
from reweight_core.machine.together import Share

ROWS = 65536
"""Rows of features that are copied to a GPU at a time."""


class Examples:
    """A split as one tensor on a device, or as stored examples that are read batch by batch.

    Rows of features go to a GPU as they are stored if they fit into half of what is free there.

    Args:
        split: images and labels.
        dataset: how to normalise and augment.
        device: where the tensors lie.
        dtype: type of the batches.
        augment: how, None for the dataset's own.
        memory_format: order of the batches in memory.

    Attributes:
        images: as given, a tensor (N, channels, height, width); None if they are stored elsewhere.
        stored: the stored examples, or None.
        labels: as given, int64 (N,).
        num_classes: C.
        memory_format: as given.

    Raises:
        UserError: if crops of random area and shape are asked for of images that are not in files.
    """

    def __init__(
        self,
        split: Split,
        dataset: Dataset,
        device: torch.device,
        dtype: torch.dtype,
        augment: Augmentation | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        augment = dataset.augment if augment is None else augment
        self.images: Tensor | None = None
        self.stored: Stored | None = None
        if isinstance(split.images, np.ndarray):
            self.images = torch.from_numpy(split.images).to(device)
        elif isinstance(split.images, FeatureRows) and _fits(split.images, device):
            self.images = _on_device(split.images, device)
        else:
            self.stored = split.images
        if augment == "resized-crop" and (self.stored is None or dataset.has_features):
            raise UserError(
                "--augment resized-crop: is for images that are read while training; give --stream on, if the "
                "dataset has it, or --augment crop-flip"
            )
        self.labels, self.num_classes = torch.from_numpy(split.labels).to(device), len(dataset.classes)
        self._dtype, exact = dtype, exact_type(split.images.dtype, dtype)
        self._mean = torch.tensor(dataset.mean, dtype=exact, device=device)[:, None, None]
        self._std = torch.tensor(dataset.std, dtype=exact, device=device)[:, None, None]
        self.memory_format = memory_format
        self._padding = dataset.padding if augment in ("crop", "crop-flip") else 0
        self._flip = augment in ("flip", "crop-flip")
        self._resized_crop = augment == "resized-crop"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_read_ahead(self) -> bool:
        """Whether batches are read before the steps that take them, by processes of their own."""
        return self.stored is not None and reads_ahead(self.stored, self.labels.device)

    def batch(
        self,
        ids: Tensor,
        generator: torch.Generator | None,
        pixels: Tensor | None = None,
        share: Share | None = None,
    ) -> Batch:
        """Return the examples at positions `ids` (n,), augmented with draws from `generator` unless it is None.

        Args:
            ids: positions.
            generator: source of the draws.
            pixels: their images, (n, channels, height, width), where they were read before. Without them stored
                ones are read now, which no step may wait for.
            share: which part of a step's whole batch these are; draws are made for all of it. None for all of it.
        """
        share = Share(len(ids)) if share is None else share
        if pixels is None and self.stored is not None:
            pixels = self._read(ids, generator)
        if pixels is None:
            images, positions = self.images, ids
        else:
            images, positions = pixels, torch.arange(len(ids), device=ids.device)
        assert images is not None, "images are on the device if not stored elsewhere"
        if generator is not None and (self._padding or self._flip):
            images = self._augmented(images, positions, generator, share)
        elif pixels is None:
            images = images.index_select(0, positions)
        inputs = (images.to(self._mean.dtype) - self._mean).div_(self._std).to(self._dtype)
        inputs = inputs.contiguous(memory_format=self.memory_format)
        return Batch(ids, inputs, self.labels.index_select(0, ids), share=share)

    def in_order(self, size: int, workers: int) -> Iterator[Batch]:
        """Go through all examples once, not augmented, in batches of `size`.

        Args:
            size: examples in a batch.
            workers: processes that read stored examples.
        """
        parts = torch.arange(len(self), device=self.labels.device).split(size)
        if self.stored is None:
            yield from (self.batch(ids, None) for ids in parts)
            return
        requests = [self.request(ids.cpu().numpy(), None) for ids in parts]
        for ids, pixels in zip(parts, read_ahead(requests, workers, self.labels.device), strict=True):
            yield self.batch(ids, None, pixels)

    def followed_by(self, other: Examples) -> Examples:
        """Return one set of these examples and another's behind them, normalised and augmented as these are.

        Raises:
            UserError: if one has its images in files and the other has not, or if their shapes differ.
        """
        joint = copy.copy(self)
        joint.labels = torch.cat([self.labels, other.labels])
        if self.stored is not None and other.stored is not None:
            joint.stored = self.stored.followed_by(other.stored)
        elif self.images is not None and other.images is not None and self.images.shape[1:] == other.images.shape[1:]:
            joint.images = torch.cat([self.images, other.images])
        else:
            raise UserError("the training and the meta set cannot be joined: one is on the device, the other is not")
        return joint

    def request(self, ids: np.ndarray, seed: tuple[int, ...] | None) -> ReadRequest:
        """Say what a batch needs; random crops, if this set has them, follow from `seed` unless it is None."""
        assert self.stored is not None
        return ReadRequest(self.stored, ids, seed if self._resized_crop else None)

    def _read(self, ids: Tensor, generator: torch.Generator | None) -> Tensor:
        seed = None
        if generator is not None and self._resized_crop:
            seed = (int(torch.randint(2**31, (), generator=generator, device=ids.device)),)
        assert self.stored is not None
        return torch.from_numpy(self.stored.read(ids.cpu().numpy(), seed)).to(ids.device)

    def _augmented(self, images: Tensor, positions: Tensor, generator: torch.Generator, share: Share) -> Tensor:
        _, channels, height, width = images.shape
        n, device, padding = len(positions), positions.device, self._padding

        def shifts() -> Tensor:
            return share.of(torch.randint(-padding, padding + 1, (share.n, 1), generator=generator, device=device))

        rows = torch.arange(height, device=device).expand(n, -1)
        columns = torch.arange(width, device=device).expand(n, -1)
        if padding:
            rows, columns = rows + shifts(), columns + shifts()
        if self._flip:
            flip = share.of(torch.rand((share.n, 1), generator=generator, device=device)) < 0.5
            columns = torch.where(flip, width - 1 - columns, columns)
        rows, columns = _reflected(rows, height), _reflected(columns, width)
        return images[
            positions[:, None, None, None],
            torch.arange(channels, device=device)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]


def _fits(rows: FeatureRows, device: torch.device) -> bool:
    return device.type == "cuda" and rows.nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def _on_device(rows: FeatureRows, device: torch.device) -> Tensor:
    """Copy rows to a device some at a time, so that they are never in memory as a whole."""
    whole = torch.empty(rows.shape, dtype=torch.from_numpy(np.empty(0, rows.dtype)).dtype, device=device)
    start = 0
    for chunk in rows.chunks(ROWS):
        whole[start : start + len(chunk), :, 0, 0] = torch.from_numpy(np.array(chunk)).to(device)
        start += len(chunk)
    return whole


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Mirror positions at the borders, without repeating the border pixel."""
    period = max(2 * (size - 1), 1)
    return (size - 1) - (positions % period - (size - 1)).abs()
