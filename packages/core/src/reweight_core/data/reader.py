"""Reading batches of image files ahead of training, in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from reweight_core.data.images import ImageFiles
from reweight_core.errors import UserError
from reweight_core.machine.device import usable_cpus


@attrs.frozen(eq=False)
class ReadRequest:
    """A batch to be read.

    Attributes:
        files: where the images are.
        ids: positions (n,).
        seed: for random crops (`ImageFiles.read`), or None.
    """

    files: ImageFiles
    ids: np.ndarray
    seed: tuple[int, ...] | None


class _Batches(TorchDataset[Tensor | str]):
    """Each item is a whole batch: uint8 (n, 3, size, size), or what is wrong with one of its files."""

    def __init__(self, requests: Sequence[ReadRequest]):
        self._requests = requests

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: int) -> Tensor | str:
        request = self._requests[index]
        try:
            return torch.from_numpy(request.files.read(request.ids, request.seed))
        except UserError as error:
            # raised here, it would reach the user as the traceback of another process
            return str(error)


def read_ahead(requests: Sequence[ReadRequest], workers: int, device: torch.device) -> Iterator[Tensor]:
    """Give the batches in order, uint8 (n, 3, size, size) on the device; those to come are read meanwhile.

    Args:
        requests: the batches.
        workers: processes that read; 0 to read in this one. The images are the same for any number.
        device: where they are wanted; for a GPU they are copied out of pinned memory.

    Raises:
        UserError: if an image cannot be read.
    """
    loader = DataLoader(
        _Batches(requests),
        batch_size=None,
        # more than there are cores would not read faster
        num_workers=min(workers, len(requests), usable_cpus()),
        pin_memory=device.type == "cuda",
        # a loader draws a seed for its workers, which must not change torch's own stream
        generator=torch.Generator(),
    )
    for pixels in loader:
        if isinstance(pixels, str):
            raise UserError(pixels)
        yield pixels.to(device, non_blocking=True)
