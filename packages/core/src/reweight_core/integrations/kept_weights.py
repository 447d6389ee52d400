"""The weights that are evaluated and kept (``ema``), put into a network whose training goes on with others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


class KeptWeights:
    """Puts the weights of another network of the same structure into one, and takes them out again.

    Args:
        model: the network that is trained.
        kept: returns the one to evaluate and keep, which may be the trained one (`Reweighter.evaluation_model`).
    """

    def __init__(self, model: nn.Module, kept: Callable[[], nn.Module]):
        self._model, self._kept = model, kept
        self._trained: Mapping[str, Tensor] | None = None

    @property
    def trained(self) -> Mapping[str, Tensor]:
        """What training goes on with, whatever is in the network now; a state dict."""
        return self._model.state_dict() if self._trained is None else self._trained

    @property
    def are_in(self) -> bool:
        """Whether the network has other weights now than those that are trained."""
        return self._trained is not None

    def put_in(self) -> None:
        """Put the weights to keep into the network."""
        if not self.are_in and (kept := self._kept()) is not self._model:
            self._trained = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
            self._model.load_state_dict(kept.state_dict())

    def take_out(self) -> None:
        """Put back what is trained."""
        if self._trained is not None:
            self._model.load_state_dict(self._trained)
            self._trained = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have them in the network inside the block; they stay in it where they were in it before."""
        were_in = self.are_in
        self.put_in()
        try:
            yield
        finally:
            if not were_in:
                self.take_out()
