"""Random numbers inside a step: drawn from a private generator, and the same in passes that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reweight_core.errors import UserError
from reweight_core.machine.together import ALONE, Share, Together

NOT_THE_SAME = (
    "the model does not compute the same twice for the same inputs, as the passes of a step have to: it draws from a "
    "generator of its own, or keeps something from pass to pass that is no buffer"
)
NOT_BY_EXAMPLE = (
    "the model draws random numbers that are not its examples' own, one after the other, which several processes "
    "cannot share: train it in one process"
)

# Functional dropout -> whether it drops whole channels, and then the dimensions of an input that has no batch
_DROPOUT: dict[Callable[..., Any], tuple[bool, int | None]] = {
    F.dropout: (False, None),
    F.dropout1d: (True, 2),
    F.dropout2d: (True, None),
    F.dropout3d: (True, 4),
}
# Draws that a network may make by itself (torchvision's stochastic depth uses bernoulli_)
_IN_PLACE: frozenset[Callable[..., Any]] = frozenset(
    {
        Tensor.bernoulli_,
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.exponential_,
        Tensor.random_,
        Tensor.log_normal_,
    }
)
# Draws in the shape of another tensor, which take no generator in older versions of torch -> what fills an empty one
_LIKE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.rand_like: Tensor.uniform_,
    torch.randn_like: Tensor.normal_,
    torch.randint_like: Tensor.random_,
}
_DRAWS: frozenset[Callable[..., Any]] = frozenset(
    {
        *_IN_PLACE,
        *_LIKE,
        torch.bernoulli,
        torch.multinomial,
        torch.normal,
        torch.rand,
        torch.randint,
        torch.randn,
        torch.randperm,
        Tensor.bernoulli,
        Tensor.multinomial,
    }
)


class RandomTape:
    """Records the random draws of one forward pass of a network and gives them again to another.

    In several processes each draws for the whole batch and takes its share, so that all generators stay in one state.

    Args:
        generator: source of the draws; its state belongs to the checkpoint.
        together: the processes of the run.
    """

    def __init__(self, generator: torch.Generator, together: Together = ALONE):
        self._generator, self._together = generator, together
        self._draws: list[Tensor] = []

    @property
    def lengths(self) -> list[int]:
        """The first dimension of each recorded draw, 0 of a single number."""
        return [len(drawn) if drawn.dim() else 0 for drawn in self._draws]

    @contextmanager
    def record(self, shares: Sequence[Share] = ()) -> Iterator[None]:
        """Draw, and keep what was drawn in place of any earlier recording.

        Args:
            shares: which parts of which batches the network is run on, one behind the other.
        """
        self._draws.clear()
        with _Mode(self._draw_and_keep, self._part(shares)):
            yield

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Give the recorded draws in the order of recording.

        Raises:
            UserError: in the block, if more is drawn than was.
        """
        remaining = iter(self._draws)

        def drawn_before(draw: object) -> Tensor:
            drawn = next(remaining, None)
            if drawn is None:
                raise UserError(NOT_THE_SAME)
            return drawn.clone()

        with _Mode(drawn_before):
            yield

    @contextmanager
    def fresh(self, shares: Sequence[Share] = ()) -> Iterator[None]:
        """Draw without keeping (arguments as `record`)."""
        with _Mode(lambda draw: draw(self._generator), self._part(shares)):
            yield

    def _part(self, shares: Sequence[Share]) -> _Part | None:
        return None if self._together.size == 1 else _Part(shares)

    def _draw_and_keep(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        drawn = draw(self._generator)
        # the network may change what it drew in place
        self._draws.append(drawn.clone())
        return drawn


class _Part:
    """A process's part of what is drawn for a whole batch, whose first dimension is that of the examples."""

    def __init__(self, shares: Sequence[Share]):
        self._shares = shares

    def whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape for the whole batch.

        Raises:
            UserError: if the shape is not one for the examples of the process's shares.
        """
        own = sum(share.own for share in self._shares)
        if not shape or not own or shape[0] % own:
            raise UserError(NOT_BY_EXAMPLE)
        return (shape[0] // own * sum(share.n for share in self._shares), *shape[1:])

    def of(self, drawn: Tensor, shape: Sequence[int]) -> Tensor:
        """Return what of the whole batch's draws is this process's, in its shape."""
        sizes = [share.n for share in self._shares]
        batches = drawn.view(sum(sizes), -1, *shape[1:]).split(sizes)
        parts = [share.of(batch) for share, batch in zip(self._shares, batches, strict=True)]
        return torch.cat(parts).reshape(tuple(shape))

    def of_call(self, call: Callable[..., Tensor], has_shape: bool) -> Callable[..., Tensor]:
        """Return what draws for the whole batch as `call` draws for the part; its first argument has the shape."""

        def drawn(*arguments: Any, **keywords: Any) -> Tensor:
            shape = tuple(arguments[0].shape) if has_shape else ()
            whole = self.whole(shape)
            return self.of(call(arguments[0].new_empty(whole), *arguments[1:], **keywords), shape)

        return drawn


class _Mode(TorchFunctionMode):
    """Hands every random draw inside a ``with`` block to `source`, which calls it with a generator or not."""

    def __init__(self, source: Callable[[Callable[[torch.Generator], Tensor]], Tensor], part: _Part | None = None):
        super().__init__()
        self._source, self._part = source, part

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            with fwad._set_fwd_grad_enabled(False):
                return self._run(func, args, kwargs)
        return self._run(func, args, kwargs)

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in _DROPOUT:
            return self._dropout(*_DROPOUT[func], *args, **kwargs)
        if func is F.scaled_dot_product_attention and (kwargs.get("dropout_p") or any(args[4:5])):
            return self._attention(*args, **kwargs)
        if func in _DRAWS:
            call = partial(_draw_like, func) if func in _LIKE else func
            if self._part is not None:
                call = self._part.of_call(call, func in _IN_PLACE or func in _LIKE)
            drawn = self._source(lambda generator: call(*args, **{**kwargs, "generator": generator}))
            return args[0].copy_(drawn) if func in _IN_PLACE else drawn
        return func(*args, **kwargs)

    def _dropout(
        self,
        channels: bool,
        unbatched: int | None,
        x: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        if not training or p == 0:
            return x
        own = x.dim() if not channels else 1 if x.dim() == unbatched else 2
        shape = x.shape[:own] + (1,) * (x.dim() - own)
        keep = 1 - p

        def draw(generator: torch.Generator) -> Tensor:
            whole = shape if self._part is None else self._part.whole(shape)
            mask = torch.empty(whole, dtype=x.dtype, device=x.device)
            mask = mask.bernoulli_(keep, generator=generator).div_(keep or 1)
            return mask if self._part is None else self._part.of(mask, shape)

        mask = self._source(draw)
        return x.mul_(mask) if inplace else x * mask

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attend as torch's plain implementation does, whose dropout takes no mask from outside."""
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            # not minus infinity: a query that sees nothing would have no softmax
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._dropout(False, None, scores.softmax(-1).to(value.dtype), dropout_p) @ value


def _draw_like(
    func: Callable[..., Any],
    input: Tensor,
    *limits: int,
    generator: torch.Generator,
    low: int | None = None,
    high: int | None = None,
    requires_grad: bool = False,
    **kind: Any,
) -> Tensor:
    limits += tuple(limit for limit in (low, high) if limit is not None)
    with torch.no_grad():
        drawn: Tensor = _LIKE[func](torch.empty_like(input, **kind), *limits, generator=generator)
    return drawn.requires_grad_(requires_grad)
