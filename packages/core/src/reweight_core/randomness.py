"""Random numbers inside a step: drawn from a private generator, and the same in passes that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Functional dropout -> how many leading dimensions have a mask entry of their own (None: all of them)
_DROPOUT: dict[Callable[..., Any], int | None] = {
    F.dropout: None,
    F.dropout1d: 2,
    F.dropout2d: 2,
    F.dropout3d: 2,
}
# Draws that a network may make by itself (torchvision's stochastic depth uses bernoulli_)
_DRAWS: frozenset[Callable[..., Any]] = frozenset(
    {torch.bernoulli, torch.rand, torch.rand_like, torch.randn, torch.randn_like, Tensor.bernoulli_, Tensor.uniform_}
)


class RandomTape:
    """Records the random draws of one forward pass of a network and gives them again to another.

    Args:
        generator: source of the draws; its state belongs to the checkpoint.
    """

    def __init__(self, generator: torch.Generator):
        self._generator = generator
        self._draws: list[Tensor] = []

    @contextmanager
    def record(self) -> Iterator[None]:
        """Draw, and keep what was drawn in place of any earlier recording."""
        self._draws.clear()
        with _Mode(self._draw_and_keep):
            yield

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Give the recorded draws in the order of recording."""
        remaining = iter(self._draws)
        with _Mode(lambda draw: next(remaining)):
            yield

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Draw without keeping."""
        with _Mode(lambda draw: draw(self._generator)):
            yield

    def _draw_and_keep(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        drawn = draw(self._generator)
        # the network may change what it drew in place
        self._draws.append(drawn.clone())
        return drawn


class _Mode(TorchFunctionMode):
    """Hands every random draw inside a ``with`` block to `source`, which calls it with a generator or not."""

    def __init__(self, source: Callable[[Callable[[torch.Generator], Tensor]], Tensor]):
        super().__init__()
        self._source = source

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUT:
            return self._dropout(_DROPOUT[func], *args, **kwargs)
        if func in _DRAWS:
            drawn = self._source(lambda generator: func(*args, **{**kwargs, "generator": generator}))
            return args[0].copy_(drawn) if func in (Tensor.bernoulli_, Tensor.uniform_) else drawn
        return func(*args, **kwargs)

    def _dropout(
        self, own_dims: int | None, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return x
        shape = x.shape if own_dims is None else x.shape[:own_dims] + (1,) * (x.dim() - own_dims)
        keep = 1 - p

        def draw(generator: torch.Generator) -> Tensor:
            mask = torch.empty(shape, dtype=x.dtype, device=x.device)
            return mask.bernoulli_(keep, generator=generator).div_(keep or 1)

        mask = self._source(draw)
        return x.mul_(mask) if inplace else x * mask
