"""Forward-mode rules of the operators where most of a network's time and memory go.

torch's own rule for BatchNorm in train mode is slow, and where a graph is wanted beside the tangents (the real pass of
a step that also takes J v) its rules keep a graph of the tangents and every tangent itself. The rules here compute
values on tensors without tangents, with a graph where one is wanted, and tangents without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class TangentRules(TorchFunctionMode):
    """Inside its ``with`` block, dual tensors take the rules of this module in place of torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            # a region that the network itself keeps out of differentiation
            return func(*args, **kwargs)
        if func is F.batch_norm:
            return batch_norm(*args, **kwargs)
        if func in _BILINEAR:
            return bilinear(func, *args, **kwargs)
        if func in _RELU:
            return relu(*args, **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            tangent = fwad.unpack_dual(result).tangent
            # a view's graph is that of its base
            if tangent is not None and tangent.requires_grad and not tangent._is_view():
                tangent.detach_()
        return result


_BILINEAR: frozenset[Callable[..., Tensor]] = frozenset({torch.conv1d, torch.conv2d, torch.conv3d, F.linear})
_RELU: frozenset[Callable[..., Tensor]] = frozenset({F.relu, torch.relu, Tensor.relu})


def bilinear(
    operator: Callable[..., Tensor],
    /,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Apply a convolution or linear map B(x, w) + b, whose tangent is B(x', w) + B(x, w') + b'."""
    (x, x_tangent), (weight, weight_tangent) = fwad.unpack_dual(input), fwad.unpack_dual(weight)
    bias, bias_tangent = (None, None) if bias is None else fwad.unpack_dual(bias)
    y = operator(x, weight, bias, *args, **kwargs)
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


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Rectify, with a tangent where the result is positive."""
    value, tangent = fwad.unpack_dual(input)
    if tangent is None or inplace:
        return F.relu(input, inplace)
    y = F.relu(value)
    with torch.no_grad():
        moved = torch.ops.aten.threshold_backward(tangent, y, 0)
    return fwad.make_dual(y, moved)


def batch_norm(
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
    """
    value, tangent = fwad.unpack_dual(input)
    if not training or tangent is None or (weight is not None and weight.dtype != value.dtype):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    gamma, gamma_tangent = (None, None) if weight is None else fwad.unpack_dual(weight)
    beta, beta_tangent = (None, None) if bias is None else fwad.unpack_dual(bias)
    y, mean, r = torch.native_batch_norm(value, gamma, beta, running_mean, running_var, True, momentum, eps)
    with torch.no_grad():
        moved, _, _ = torch.ops.aten.native_batch_norm_backward(
            tangent, value, gamma, running_mean, running_var, mean, r, True, eps, [True, False, False]
        )
        shape = (1, -1, *(1,) * (value.dim() - 2))
        if gamma_tangent is not None:
            slope = r * gamma_tangent
            offset = -mean * slope if beta_tangent is None else beta_tangent - mean * slope
            moved = moved.add_(torch.addcmul(offset.view(shape), value, slope.view(shape)))
        elif beta_tangent is not None:
            moved = moved.add_(beta_tangent.view(shape))
    return fwad.make_dual(y, moved)
