"""What the operators of a real pass returned, so that a tangent pass need not compute it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import TensorWeakRef

from reweight_core.engine.tangent_rules import BILINEAR, RELU, Operator

Statistics = tuple[Tensor, Tensor]
"""Mean and inverse standard deviation of each channel, (channels,)."""


class OtherOperatorsError(Exception):
    """The tangent pass does not run the operators of the real pass, in their order."""


@attrs.frozen(eq=False)
class _Call:
    """A call of an operator in the real pass.

    Attributes:
        operator: what was called.
        result: gives what it returned, None if that is gone.
        version: how often the result had been changed in place.
        statistics: of a BatchNorm in train mode, else None.
    """

    operator: Operator
    result: Callable[[], Tensor | None]
    version: int
    statistics: Statistics | None


class Remembered:
    """The calls of convolutions, linear maps, rectifiers and BatchNorm in a real pass.

    What autograd keeps for the backward pass is there, which costs no memory; the rest is computed again. A rectifier's
    result is always kept; others are held weakly, because they are kept where the next operator needs them.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    @contextmanager
    def record(self) -> Iterator[None]:
        """Note the calls inside the block, in place of any earlier ones."""
        self._calls.clear()
        with _Recording(self._calls):
            yield

    def forget(self) -> None:
        """Keep nothing."""
        self._calls.clear()

    @contextmanager
    def recall(self) -> Iterator[Recall]:
        """Give the calls in their order.

        Raises:
            OtherOperatorsError: if others are made inside the block.
        """
        recall = Recall(self._calls)
        yield recall
        recall.close()


class _Recording(TorchFunctionMode):
    def __init__(self, calls: list[_Call]):
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # a region that the network itself keeps out of differentiation is none of the tangent pass's either
        if torch.is_grad_enabled() and (func in BILINEAR or func in RELU or func is F.batch_norm):
            # those that autograd keeps for BatchNorm's own backward
            mean = getattr(result.grad_fn, "_saved_result1", None)
            statistics = None if mean is None or not len(mean) else (mean, result.grad_fn._saved_result2)
            kept = TensorWeakRef(result) if func not in RELU else partial(Tensor.detach, result.detach())
            self._calls.append(_Call(func, kept, result._version, statistics))
        return result


class Recall:
    """The calls of a real pass, asked for one after another."""

    def __init__(self, calls: list[_Call]):
        self._calls = iter(calls)

    def next(self, operator: Operator) -> tuple[Tensor | None, Statistics | None]:
        """Return the next call's result, detached, None if it is gone or was changed in place, and its statistics.

        Raises:
            OtherOperatorsError: if another operator is called than was then.
        """
        call = next(self._calls, None)
        if call is None or call.operator is not operator:
            raise OtherOperatorsError
        result = call.result()
        if result is None or result._version != call.version:
            return None, call.statistics
        return result.detach(), call.statistics

    def close(self) -> None:
        """Raise `OtherOperatorsError` if calls are left."""
        if next(self._calls, None) is not None:
            raise OtherOperatorsError
