"""The network as it was best on the validation set."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from reweight_core.runs.checkpoint import best_epoch


class BestNetwork:
    """Keeps the weights and running statistics of the network that was best on the validation set so far.

    Args:
        model: the network in training, for its structure.
        by: the figure of an epoch's metrics by which it is chosen; the larger the better.

    Attributes:
        weights: state dict of the best network, or None before the first evaluation or without a validation set.
    """

    def __init__(self, model: nn.Module, by: str):
        self._model, self._by, self._figure = model, by, -math.inf
        self.weights: dict[str, Tensor] | None = None

    def note(self, evaluated: nn.Module, metrics: Mapping[str, Any]) -> None:
        """Keep a network if it is better than those before it.

        Args:
            evaluated: the network that was evaluated, of the same structure as the one in training.
            metrics: of its epoch; the figure is None without a validation set.
        """
        figure = metrics[self._by]
        if figure is not None and figure > self._figure:
            self._figure = figure
            self.weights = {name: tensor.clone() for name, tensor in evaluated.state_dict().items()}

    def copy(self) -> nn.Module | None:
        """Return a copy of the network as it was best, in eval mode, or None if there is none."""
        if self.weights is None:
            return None
        network = copy.deepcopy(self._model)
        network.load_state_dict(self.weights)
        return network.eval()

    def restore(self, weights: Mapping[str, Tensor] | None, history: Sequence[Mapping[str, Any]]) -> None:
        """Go back to what was kept after the epochs of `history`."""
        best = best_epoch(history, self._by)
        if best is None or weights is None:
            return
        self._figure = best[self._by]
        like = self._model.state_dict()
        self.weights = {name: tensor.to(like[name].device, copy=True) for name, tensor in weights.items()}
