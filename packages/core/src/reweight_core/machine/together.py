"""The processes that train one run together: each one's share of a batch, and what they exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from reweight_core.errors import LostProcessError, reason

Value = TypeVar("Value")
Sliced = TypeVar("Sliced")


@attrs.frozen
class Share:
    """The part of a batch that one of several processes has: every `size`-th example, from its own `rank` on.

    Attributes:
        n: number of examples in the whole batch.
        rank: number of the process, from 0.
        size: number of processes.
    """

    n: int
    rank: int = 0
    size: int = 1

    def of(self, whole: Sliced) -> Sliced:
        """Return the part of a tensor or an array with a row for each of the n examples."""
        return whole if self.size == 1 else whole[self.rank :: self.size]  # type: ignore[index]  # tensor or array

    @property
    def own(self) -> int:
        """Number of examples in the part."""
        return len(range(self.rank, self.n, self.size))


class Group(Protocol):
    """What carries tensors and objects from each process to every other."""

    def begin_sum(self, tensor: Tensor) -> Callable[[], object]:
        """Begin to put the sum of all processes into each one's tensor; what is returned waits for it."""

    def maximise(self, tensor: Tensor) -> None:
        """Put the largest of all processes' into each one's tensor, entry by entry."""

    def broadcast(self, value: Any) -> Any:
        """Return the value of process 0."""


class TorchGroup:
    """The default process group of torch.distributed."""

    def begin_sum(self, tensor: Tensor) -> Callable[[], object]:
        """See `Group.begin_sum`."""
        with _told():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with _told():
                work.wait()

        return wait

    def maximise(self, tensor: Tensor) -> None:
        """See `Group.maximise`."""
        with _told():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def broadcast(self, value: Any) -> Any:
        """See `Group.broadcast`."""
        box = [value]
        with _told():
            dist.broadcast_object_list(box, src=0)
        return box[0]


class Together:
    """The processes of a run, as one of them sees them; a run of one process exchanges nothing.

    Every process calls the same functions in the same order.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
        group: what they exchange by; None for torch's default process group.
        sync_batchnorm: whether BatchNorm normalises by the statistics of whole batches, not of each process's share.

    Attributes:
        rank: as given.
        size: as given.
        sync_batchnorm: as given; False with one process.
        on_exchange: called at every exchange of tensors with the bytes of one process's; for counting them.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: Group | None = None, sync_batchnorm: bool = False):
        self.rank, self.size, self.sync_batchnorm = rank, size, sync_batchnorm and size > 1
        self.group = TorchGroup() if group is None else group
        self.on_exchange: Callable[[int], object] = lambda count: None

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which alone writes files and prints."""
        return self.rank == 0

    def share(self, n: int) -> Share:
        """Return this process's share of a batch of n examples."""
        return Share(n, self.rank, self.size)

    def total(self, part: Tensor) -> Tensor:
        """Return the sum of all processes' tensors, of one shape; differentiable, as if there were one process."""
        if self.size == 1:
            return part
        total: Tensor = _Total.apply(part, self)
        return total

    def totals(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of several tensors by name, those of one number type exchanged as one; differentiable."""
        if self.size == 1:
            return dict(parts)
        found: dict[str, Tensor] = {}
        for dtype in dict.fromkeys(part.dtype for part in parts.values()):
            alike = {name: part for name, part in parts.items() if part.dtype == dtype}
            whole = self.total(torch.cat([part.reshape(-1) for part in alike.values()]))
            summed = whole.split([part.numel() for part in alike.values()])
            found |= {name: one.view_as(alike[name]) for name, one in zip(alike, summed, strict=True)}
        return {name: found[name] for name in parts}

    def whole(self, part: Tensor, share: Share) -> Tensor:
        """Return the rows of a whole batch from those of each process's share; differentiable."""
        if self.size == 1:
            return part
        rows = torch.zeros(share.n, *part.shape[1:], dtype=part.dtype, device=part.device)
        own = torch.arange(share.rank, share.n, share.size, device=part.device)
        return self.total(rows.index_copy(0, own, part))

    def first(self, tensor: Tensor) -> Tensor:
        """Return process 0's tensor in every process, which have one of this shape each."""
        if self.size == 1:
            return tensor
        return self.total(tensor if self.is_first else torch.zeros_like(tensor))

    def of_process(self, rank: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one process's tensors, bit for bit, in all, which have some of the same names, shapes and types."""
        found = {}
        for name, tensor in tensors.items():
            mine = tensor.detach() if self.rank == rank else torch.zeros_like(tensor)
            # one by one: together they would need as much memory again, and a view must begin at a whole number
            total = self.total(mine.reshape(-1).contiguous().view(torch.uint8))
            found[name] = total.view(tensor.dtype).view(tensor.shape)
        return found

    def begin_sum(self, tensor: Tensor) -> Callable[[], object]:
        """Begin to put the sum of all processes into each one's tensor, in place; what is returned waits for it."""
        self.on_exchange(tensor.nbytes)
        return self.group.begin_sum(tensor)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean of all processes into each one's floating-point tensors, in place; others are the same."""
        real = {str(i): t for i, t in enumerate(tensors) if t.is_floating_point()}
        if self.size > 1 and real:
            for name, total in self.totals({name: t.detach().double() for name, t in real.items()}).items():
                real[name].copy_(total / self.size)

    def greatest(self, part: Tensor) -> Tensor:
        """Return the largest of all processes' tensors, entry by entry."""
        if self.size == 1:
            return part
        self.on_exchange(part.nbytes)
        whole = part.clone()
        self.group.maximise(whole)
        return whole

    def same(self, value: Value) -> Value:
        """Return what process 0 gives, in every process; it waits for all of them."""
        if self.size == 1:
            return value
        found: Value = self.group.broadcast(value)
        return found


ALONE = Together()
"""The one process of a run that has no other."""


class _Total(torch.autograd.Function):
    """Sums over processes. What depends on the total does so in every one, so its gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, together: Together) -> Tensor:
        ctx.together = together
        whole = part.detach().clone(memory_format=torch.contiguous_format)
        together.begin_sum(whole)()
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.together.total(gradient), None


@contextmanager
def _told() -> Iterator[None]:
    """Say in the user's words that an exchange failed."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"a process of this run has ended, or did not answer for two hours ({reason(error)[:80]})"
        ) from error
