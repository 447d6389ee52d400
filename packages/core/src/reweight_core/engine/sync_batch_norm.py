"""BatchNorm by the statistics of a batch that several processes share (``--sync-batchnorm``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reweight_core.machine.together import Together


class SyncBatchNorm(TorchFunctionMode):
    """Inside its ``with`` block, BatchNorm in train mode normalises by mean and variance over all processes.

    The sums behind them are exchanged: two for the values, one for their tangents, and as many in a backward pass.

    Args:
        together: the processes.
    """

    def __init__(self, together: Together):
        super().__init__()
        self._together = together

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return batch_norm(self._together, *args, **kwargs)
        return func(*args, **kwargs)


def batch_norm(
    together: Together,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise as torch.nn.functional.batch_norm does with the whole batch, with its tangent.

    With c = x - mean and x^ = c r, r = 1/std, a tangent x' moves mean by the mean of x', and r by - r^3 times the mean
    of c x'; of these two means the sums are exchanged.

    Args:
        together: the processes.
        input: the others as torch has them.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    value, tangent = fwad.unpack_dual(input)
    gamma, gamma_tangent = (None, None) if weight is None else fwad.unpack_dual(weight)
    beta, beta_tangent = (None, None) if bias is None else fwad.unpack_dual(bias)
    shape = (1, -1, *(1,) * (value.dim() - 2))
    others = [dim for dim in range(value.dim()) if dim != 1]
    x = value.to(torch.promote_types(value.dtype, torch.float32))
    own = x.new_full((1,), x.numel() / x.shape[1])
    sums = together.total(torch.cat([x.sum(others), own]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    c = x - mean.view(shape)
    variance = together.total(c.square().sum(others)) / count
    r = (variance + eps).rsqrt()
    normalised = c * r.view(shape)
    y = normalised if gamma is None else normalised * gamma.view(shape)
    y = y if beta is None else y + beta.view(shape)
    with torch.no_grad():
        for running, found in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
            if running is not None:
                running.mul_(1 - momentum).add_((momentum * found).to(running.dtype))
        moved = torch.zeros_like(x)
        if tangent is not None:
            t = tangent.to(x.dtype)
            both = together.total(torch.cat([t.sum(others), (c * t).sum(others)])) / count
            of_mean, of_square = both.view(2, *shape)
            r_here = r.view(shape)
            moved = (t - of_mean) * r_here - c * r_here**3 * of_square
            moved = moved if gamma is None else moved * gamma.view(shape)
        if gamma_tangent is not None:
            moved = moved + normalised * gamma_tangent.view(shape)
        if beta_tangent is not None:
            moved = moved + beta_tangent.view(shape)
    y = y.to(value.dtype)
    if tangent is None and gamma_tangent is None and beta_tangent is None:
        return y
    return fwad.make_dual(y, moved.to(y.dtype))
