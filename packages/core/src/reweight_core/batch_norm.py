"""A faster forward-mode rule for BatchNorm in train mode."""

from __future__ import annotations

from typing import Any

import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FastBatchNorm(TorchFunctionMode):
    """Inside its ``with`` block, batch normalisation of dual tensors takes `batch_norm` in place of torch's rule."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
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
    if not training or fwad.unpack_dual(x).tangent is None or (weight is not None and weight.dtype != x.dtype):
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    value, tangent = fwad.unpack_dual(x)
    gamma, gamma_tangent = (None, None) if weight is None else fwad.unpack_dual(weight)
    beta, beta_tangent = (None, None) if bias is None else fwad.unpack_dual(bias)
    y, mean, r = torch.native_batch_norm(value, gamma, beta, running_mean, running_var, True, momentum, eps)
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
