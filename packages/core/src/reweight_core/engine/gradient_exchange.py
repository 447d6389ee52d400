"""Summing a network's gradients over processes while its backward pass still runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from reweight_core.machine.together import Together

BUCKET = 25 * 2**20
"""Bytes of gradients that are exchanged at once, as in DistributedDataParallel."""


class GradientExchange:
    """Sums ``parameter.grad`` over processes, in buckets that are sent as soon as their gradients are there.

    `DistributedDataParallel` does the same for a mean in the place of the sum; its reducer is not used because a step
    may be recorded, may run its forward pass twice (``--memory lean``), and need not reach every parameter.

    Args:
        parameters: leaf tensors whose gradients exist.
        together: the processes of the run; with one of them, nothing is done.
    """

    def __init__(self, parameters: Sequence[Tensor], together: Together):
        self._together = together
        self._buckets: list[list[Tensor]] = []
        self._armed = False
        if together.size == 1:
            return
        # gradients come in about the reverse order of the parameters
        for parameter in reversed(parameters):
            last = self._buckets[-1] if self._buckets else []
            fits = sum(p.nbytes for p in last) + parameter.nbytes <= BUCKET
            if not last or not fits or last[0].dtype != parameter.dtype:
                self._buckets.append([])
            self._buckets[-1].append(parameter)
        self._bucket_of = {id(p): i for i, bucket in enumerate(self._buckets) for p in bucket}
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._note)
        self._missing: list[int] = []
        self._sent: list[tuple[Tensor, Callable[[], object]]] = []

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Sum the gradients that the backward pass inside the block leaves; they are whole behind it."""
        if self._together.size == 1:
            yield
            return
        self._missing, self._sent, self._armed = [len(bucket) for bucket in self._buckets], [], True
        try:
            yield
        finally:
            self._armed = False
        while len(self._sent) < len(self._buckets):
            # of parameters that the pass did not reach
            self._send()
        for bucket, (flat, wait) in zip(self._buckets, self._sent, strict=True):
            wait()
            for parameter, total in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                _gradient(parameter).copy_(total.view_as(parameter))
        self._sent = []

    def _note(self, parameter: Tensor) -> None:
        if not self._armed:
            return
        self._missing[self._bucket_of[id(parameter)]] -= 1
        # in one order, which every process keeps
        while len(self._sent) < len(self._buckets) and self._missing[len(self._sent)] == 0:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        with torch.no_grad():
            flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in bucket])
        self._sent.append((flat, self._together.begin_sum(flat)))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "made before the first step"
    return parameter.grad
