"""A recorder for the CPU: runs code once, then repeats its operators on the same memory, as a CUDA graph does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reweight_core.engine.cuda_graphs import RecordingError
from reweight_core.errors import PluginError

_HOST_READS = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::is_nonzero",
        "aten::item",
        "aten::equal",
        "aten::nonzero",
        "aten::masked_select",
        "aten::_unique2",
        "aten::unique_dim",
        "aten::unique_consecutive",
        "aten::bincount",
        "aten::repeat_interleave",
    }
)


_PYTHON_READS = ("tolist", "numpy", "__array__")
"""Methods of tensors that copy values without an operator."""


class HostReadError(AssertionError):
    """A value was read back to the host, or a shape depended on values, inside a recorded step."""


class Recorder(TorchDispatchMode):
    """Records the operators run inside its ``with`` block; `replay` runs them again on the same memory.

    Raises:
        HostReadError: inside the block, at an operator that a recording cannot hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self._originals: dict[str, Any] = {}
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []

    def __enter__(self) -> Recorder:
        def refuse(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            raise HostReadError("values of a tensor are read inside a step: a recorded step cannot do that")

        for name in _PYTHON_READS:
            self._originals[name] = getattr(Tensor, name)
            setattr(Tensor, name, refuse)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for name, original in self._originals.items():
            setattr(Tensor, name, original)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        indices = args[1] if name in ("aten::index", "aten::index_put_") else ()
        boolean_mask = any(isinstance(i, Tensor) and i.dtype == torch.bool for i in indices)
        if name in _HOST_READS or boolean_mask:
            raise HostReadError(f"{name} inside a step: a recorded step cannot read values")
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Run the recorded operators again, each result going to where the first one lies."""
        for func, args, kwargs, recorded in self._calls:
            for new, old in zip(tree_leaves(func(*args, **kwargs)), tree_leaves(recorded), strict=True):
                if isinstance(new, Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


class CpuBackend:
    """Records steps on the CPU (`reweight_core.engine.cuda_graphs.Backend`)."""

    def run(self, take: Callable[[], None]) -> None:
        """Take a step by itself; under a mode, because some of torch's forward-mode rules round differently there."""
        with Recorder():
            take()

    def record(self, take: Callable[[], None]) -> Callable[[], None]:
        """Take a step and record it.

        Raises:
            RecordingError: if it reads values.
        """
        recorder = Recorder()
        try:
            with recorder:
                take()
        except (HostReadError, PluginError) as error:
            raise RecordingError(str(error)) from error
        return recorder.replay
