"""Forward-mode rules of the operators where most of a network's time and memory go.

torch's own rule for BatchNorm in train mode is slow, and where a graph is wanted beside the tangents (the real pass of
a step that also takes J v) its rules keep a graph of the tangents and every tangent itself. The rules here compute
values on tensors without tangents, with a graph where one is wanted, and tangents without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Operator = Callable[..., Tensor]

BILINEAR: frozenset[Operator] = frozenset({torch.conv1d, torch.conv2d, torch.conv3d, F.linear})
RELU: frozenset[Operator] = frozenset({F.relu, torch.relu, Tensor.relu})


class Recalled(Protocol):
    """What a pass at the same inputs and parameters returned; see `reweight_core.engine.remembered.Recall`."""

    def next(self, operator: Operator) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
        """Give an operator's result and a BatchNorm's statistics, each None if it is not at hand."""


class TangentRules(TorchFunctionMode):
    """Inside its ``with`` block, dual tensors take the rules of this module in place of torch's.

    Args:
        recalled: values that need not be computed again.
    """

    def __init__(self, recalled: Recalled | None = None):
        super().__init__()
        self._recalled = recalled

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            # a region that the network itself keeps out of differentiation
            return func(*args, **kwargs)
        if func is F.batch_norm or func in BILINEAR or func in RELU:
            result, statistics = (None, None) if self._recalled is None else self._recalled.next(func)
            if func in BILINEAR:
                return bilinear(func, result, *args, **kwargs)
            if func in RELU:
                return relu(result, *args, **kwargs)
            # its result is rounded otherwise when it is computed anew, and whether it is at hand is a matter of chance
            return batch_norm(statistics, *args, **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            tangent = fwad.unpack_dual(result).tangent
            # a view's graph is that of its base
            if tangent is not None and tangent.requires_grad and not tangent._is_view():
                tangent.detach_()
        return result


def bilinear(
    operator: Operator,
    result: Tensor | None,
    /,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Apply a convolution or linear map B(x, w) + b, whose tangent is B(x', w) + B(x, w') + b'; `result` if known."""
    (x, x_tangent), (weight, weight_tangent) = fwad.unpack_dual(input), fwad.unpack_dual(weight)
    bias, bias_tangent = (None, None) if bias is None else fwad.unpack_dual(bias)
    y = operator(x, weight, bias, *args, **kwargs) if result is None else result
    with torch.no_grad():
        parts = []
        if x_tangent is not None:
            parts.append(operator(x_tangent, weight, None, *args, **kwargs))
        if weight_tangent is not None:
            parts.append(operator(x, weight_tangent, bias_tangent, *args, **kwargs))
        elif bias_tangent is not None:
            parts.append(operator(torch.zeros_like(x), weight, bias_tangent, *args, **kwargs))
        if len(parts) == 2:
            parts = [parts[0].add_(parts[1])]
    return fwad.make_dual(y, parts[0]) if parts else y


def relu(result: Tensor | None, /, input: Tensor, inplace: bool = False) -> Tensor:
    """Rectify, with a tangent where the result is positive; `result` if known."""
    value, tangent = fwad.unpack_dual(input)
    if tangent is None or inplace:
        return F.relu(input, inplace)
    y = F.relu(value) if result is None else result
    with torch.no_grad():
        moved = torch.ops.aten.threshold_backward(tangent, y, 0)
    return fwad.make_dual(y, moved)


def batch_norm(
    statistics: tuple[Tensor, Tensor] | None,
    /,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise as torch.nn.functional.batch_norm does, with its tangent by BatchNorm's backward kernel.

    With x^ = (x - mean) r, r = 1/std, the derivative of y = gamma x^ + beta in x is gamma r (I - P) in every channel,
    where P projects on the constants and on x^. That matrix is symmetric, so what carries gradients back carries
    tangents forward; gamma and beta add x^ gamma' + beta'.

    Args:
        statistics: mean and r of the batch, if they are known.
        input: the others as torch has them.
    """
    value, tangent = fwad.unpack_dual(input)
    if not training or tangent is None or (weight is not None and weight.dtype != value.dtype):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    gamma, gamma_tangent = (None, None) if weight is None else fwad.unpack_dual(weight)
    beta, beta_tangent = (None, None) if bias is None else fwad.unpack_dual(bias)
    shape = (1, -1, *(1,) * (value.dim() - 2))
    if statistics is None:
        y, mean, r = torch.native_batch_norm(value, gamma, beta, running_mean, running_var, True, momentum, eps)
    else:
        mean, r = statistics
        y = _normalised(value, gamma, beta, mean, r, shape)
    with torch.no_grad():
        moved, _, _ = torch.ops.aten.native_batch_norm_backward(
            tangent, value, gamma, running_mean, running_var, mean, r, True, eps, [True, False, False]
        )
        if gamma_tangent is not None:
            slope = r * gamma_tangent
            offset = -mean * slope if beta_tangent is None else beta_tangent - mean * slope
            moved = moved.add_(torch.addcmul(offset.view(shape), value, slope.view(shape)))
        elif beta_tangent is not None:
            moved = moved.add_(beta_tangent.view(shape))
    return fwad.make_dual(y, moved)


def _normalised(
    value: Tensor, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, r: Tensor, shape: tuple[int, ...]
) -> Tensor:
    slope = r if gamma is None else r * gamma
    offset = -mean * slope if beta is None else beta - mean * slope
    return torch.addcmul(offset.view(shape), value, slope.view(shape))
