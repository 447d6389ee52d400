"""Networks inside what other parts of torch made of them, run as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def original(model: nn.Module) -> nn.Module:
    """Return the network inside `torch.compile` and `DistributedDataParallel`."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]  # a submodule may hold anything
        else:
            return model


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile` made a part of the network, or it was compiled in place."""
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())


@contextmanager
def uncompiled(compiled: bool = True) -> Iterator[None]:
    """Run what is compiled as it was written inside the block: it has no forward mode, and draws by itself.

    Args:
        compiled: whether there is anything; finding out how takes seconds.
    """
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
