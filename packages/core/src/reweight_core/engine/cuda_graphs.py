"""Steps as recordings: what a step does on the device, kept as a CUDA graph and replayed without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reweight_core.engine.stage import TRAINING, Stage
from reweight_core.engine.training_step import TrainingStep
from reweight_core.errors import UserError, reason

_READS: frozenset[Any] = frozenset(
    {
        Tensor.__bool__,
        Tensor.__float__,
        Tensor.__array__,
        Tensor.__index__,
        Tensor.__int__,
        Tensor.bincount,
        Tensor.cpu,
        Tensor.equal,
        Tensor.is_nonzero,
        Tensor.item,
        Tensor.masked_select,
        Tensor.nonzero,
        Tensor.numpy,
        Tensor.tolist,
        Tensor.unique,
        torch.allclose,
        torch.argwhere,
        torch.bincount,
        torch.equal,
        torch.is_nonzero,
        torch.masked_select,
        torch.nonzero,
        torch.repeat_interleave,
        torch.unique,
        torch.unique_consecutive,
    }
)


class RecordingError(Exception):
    """A step cannot be recorded; the text says why."""


class Backend(Protocol):
    """A way to record steps."""

    def run(self, take: Callable[[], None]) -> None:
        """Take a step that is not recorded, in the surroundings in which the next of its kind will be."""

    def record(self, take: Callable[[], None]) -> Callable[[], None]:
        """Take a step and record it; return what takes the next one like it.

        Raises:
            RecordingError: if that fails; the step is not taken then.
        """


class RecordedSteps:
    """Takes steps, from the third of a kind in an epoch on by replaying the second.

    Steps are of one kind if their batches have one size and one source, and if they agree on looking ahead. The first
    of a kind makes state that is made on first use; a kind that comes once, a partial batch, is not worth recording.

    Args:
        step: the step; what is fed to it is read by recordings too.
        backend: how to record.
        required: whether a step that cannot be recorded is an error instead of a warning.
    """

    def __init__(self, step: TrainingStep, backend: Backend, required: bool = False):
        self._step, self._backend, self._required = step, backend, required
        self._seen: set[tuple[int, str, bool]] = set()
        self._recordings: dict[tuple[int, str, bool], Callable[[], None]] = {}
        self._gave_up = False

    def run(self, size: int, stage: Stage = TRAINING, looks_ahead: bool = True, epoch: int = 0) -> None:
        """Take one step (arguments as `TrainingStep.run`).

        Raises:
            UserError: if it cannot be recorded and recordings are required.
        """
        kind = size, stage.source, looks_ahead
        take = partial(self._step.run, size, stage, looks_ahead, epoch)
        if kind in self._recordings:
            self._recordings[kind]()
        elif self._gave_up:
            take()
        elif kind not in self._seen:
            self._seen.add(kind)
            self._backend.run(take)
        else:
            try:
                self._recordings[kind] = self._backend.record(take)
            except RecordingError as problem:
                if self._required:
                    raise UserError(f"--graph on: {problem}; use --graph auto or off") from problem
                warnings.warn(f"--graph auto: {problem}; every step runs by itself", stacklevel=2)
                self._gave_up = True
                take()

    def begin_epoch(self) -> None:
        """Begin an epoch of the step, and drop all recordings: the look-ahead, or what a plugin does, may change."""
        self._seen.clear()
        self._recordings.clear()
        self._step.begin_epoch()


class CudaGraphs:
    """Records steps as CUDA graphs.

    Args:
        device: the GPU.
        generators: the generators that steps are known to draw from; others are found as they are used.
    """

    def __init__(self, device: torch.device, generators: Iterable[torch.Generator] = ()):
        self._device = device
        self._watch = Watch(device, generators)
        # gradients are accumulated on the stream that first did so: all of a step must be on one
        self._stream = torch.cuda.Stream(device)

    def run(self, take: Callable[[], None]) -> None:
        """See `Backend.run`."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), self._watch:
            take()
        current.wait_stream(self._stream)

    def record(self, take: Callable[[], None]) -> Callable[[], None]:
        """See `Backend.record`."""
        if self._watch.reads:
            raise RecordingError(f"the step reads values back to the host ({', '.join(sorted(self._watch.reads))})")
        if any(generator.device.type != "cuda" for generator in self._watch.generators):
            raise RecordingError("the step draws random numbers on the CPU")
        graph = torch.cuda.CUDAGraph()
        try:
            for generator in self._watch.generators:
                graph.register_generator_state(generator)
            # other threads go on working with the GPU meanwhile: one pins the images that are read ahead
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                take()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RecordingError(f"the step cannot be recorded as a CUDA graph ({reason(error)})") from error
        graph.replay()
        return graph.replay


class Watch(TorchFunctionMode):
    """Notes, inside its ``with`` block, what a recording must know of: generators drawn from, and values read.

    Args:
        device: whose values are meant; reading those of another costs a recording nothing.
        generators: generators that are known already.

    Attributes:
        generators: all of them.
        reads: names of the functions by which values came to the host.
    """

    def __init__(self, device: torch.device, generators: Iterable[torch.Generator] = ()):
        super().__init__()
        self._device = device.type
        self.generators = list(generators)
        self.reads: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if generator is not None and not any(generator is known for known in self.generators):
            self.generators.append(generator)
        by_mask = func in (Tensor.__getitem__, Tensor.__setitem__) and _is_mask(args[1])
        if (func in _READS or by_mask) and any(isinstance(t, Tensor) and t.device.type == self._device for t in args):
            self.reads.add(func.__name__)
        return func(*args, **kwargs)


def _is_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)
