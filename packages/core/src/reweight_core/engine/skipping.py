"""Taking a step back whose quantities were not finite, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from reweight_core.errors import PluginError


class Skipping:
    """Keeps what a run carries as it was before a step, and puts it back where the step is to change nothing.

    What a step makes for the first time goes back to 0, where optimizers begin. The states of generators stay: a step
    that is taken back has drawn its numbers.

    Args:
        carried: returns what a step may change, by name: the same tensors every time.
    """

    def __init__(self, carried: Callable[[], Mapping[str, Tensor]]):
        self._carried = carried
        self._held: Mapping[str, Tensor] | None = None
        self._copies: frozenset[str] | None = None
        self._before: dict[str, Tensor] = {}

    def look(self) -> None:
        """Find what the next step may change; called outside of recordings.

        Raises:
            PluginError: if some of it is a copy, to which nothing could be put back.
        """
        if self._copies is None:
            again = self._carried()
            copies = {n: t for n, t in self._carried().items() if t.data_ptr() != again[n].data_ptr()}
            for name, tensor in copies.items():
                # the states of generators are bytes
                if tensor.dtype != torch.uint8:
                    raise PluginError(
                        f"--on-nonfinite skip: state_dict() gives a copy of '{name}', to which nothing can be put back"
                    )
            self._copies = frozenset(copies)
        self._held = self._in_place()

    def _in_place(self) -> dict[str, Tensor]:
        assert self._copies is not None, "looked before"
        return {name: tensor for name, tensor in self._carried().items() if name not in self._copies}

    def remember(self) -> None:
        """Keep everything as it is, before a step."""
        assert self._held is not None, "looked before"
        self._before = {name: tensor.clone() for name, tensor in self._held.items()}

    def take_back(self, wrong: Tensor) -> None:
        """Put everything back if a step was wrong, in place.

        Args:
            wrong: whether it was, a tensor without dimensions.
        """
        recording = wrong.is_cuda and torch.cuda.is_current_stream_capturing()
        now = self._held if recording else self._in_place()
        assert now is not None, "looked before"
        for name, tensor in now.items():
            before = self._before.get(name)
            kept = torch.zeros_like(tensor) if before is None else before
            tensor.copy_(torch.where(wrong.to(tensor.device), kept, tensor))
        self._before = {}
