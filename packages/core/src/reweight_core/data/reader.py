"""Reading batches of stored examples for training, ahead and in processes of their own where that takes long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from reweight_core.data.stored import Stored
from reweight_core.errors import UserError
from reweight_core.machine.device import usable_cpus


@attrs.frozen(eq=False)
class ReadRequest:
    """A batch to be read.

    Attributes:
        stored: where the examples are.
        ids: positions (n,).
        seed: for random crops (`Stored.read`), or None.
    """

    stored: Stored
    ids: np.ndarray
    seed: tuple[int, ...] | None


class _Batches(TorchDataset[Tensor | str]):
    """Each item is a whole batch: (n, channels, height, width), or what is wrong with one of its examples."""

    def __init__(self, requests: Sequence[ReadRequest]):
        self._requests = requests

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: int) -> Tensor | str:
        request = self._requests[index]
        try:
            return torch.from_numpy(request.stored.read(request.ids, request.seed))
        except UserError as error:
            # raised here, it would reach the user as the traceback of another process
            return str(error)


def reads_ahead(stored: Stored, device: torch.device) -> bool:
    """Whether reading takes so long that it is done ahead; to a GPU, copying counts too."""
    return stored.slow or device.type == "cuda"


def read_ahead(requests: Sequence[ReadRequest], workers: int, device: torch.device) -> Iterator[Tensor]:
    """Give the batches in order, (n, channels, height, width) on the device; those to come are read meanwhile.

    Args:
        requests: the batches.
        workers: processes that read; 0 to read in this one, as is done anyway where reading is quick (`reads_ahead`).
            The examples are the same for any number.
        device: where they are wanted; for a GPU they are copied out of pinned memory.

    Raises:
        UserError: if an image cannot be read.
    """
    ahead = any(reads_ahead(stored, device) for stored in {id(r.stored): r.stored for r in requests}.values())
    loader = DataLoader(
        _Batches(requests),
        batch_size=None,
        # more than there are cores would not read faster
        num_workers=min(workers, len(requests), usable_cpus()) if ahead else 0,
        pin_memory=device.type == "cuda",
        # a loader draws a seed for its workers, which must not change torch's own stream
        generator=torch.Generator(),
    )
    for pixels in loader:
        if isinstance(pixels, str):
            raise UserError(pixels)
        yield pixels.to(device, non_blocking=True)
