"""Class-balanced loss (Cui et al., CVPR 2019) and weighting by inverse frequency, from the start or deferred."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from reweight_core import Batch, Context, Step, cross_entropy, hookimpl
from reweight_losses.class_counts import class_counts, effective_number_weights
from reweight_losses.options import ClassBalancedConfig


class DeferredWeights:
    """Class weights that are 1 until an epoch is over (deferred re-weighting: Cao et al., NeurIPS 2019, Algorithm 1).

    Args:
        weights: what they are from then on, (C,).
        start: number of epochs with weights of 1.
        device: where they lie.
        dtype: their type.

    Attributes:
        w: the weights at present, (C,).
    """

    def __init__(self, weights: Tensor, start: int, device: torch.device, dtype: torch.dtype):
        self._later, self._start = weights.to(device, dtype), start
        self.w = self._later.clone() if start == 0 else torch.ones_like(self._later)

    def finish_epoch(self, epoch: int) -> None:
        """Change to the later weights if it is time."""
        if epoch == self._start:
            self.w.copy_(self._later)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the present weights."""
        return {"w": self.w}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.w.copy_(state["w"])


class ClassBalanced:
    """w_y CE; w_c = (1 - beta) / (1 - beta^N_c) with mean 1 over the classes, of the observed labels (section 4).

    The published code divides the sum over a batch by n; PyTorch's weighted cross-entropy, and the code of LDAM, by the
    batch's sum of w_y.
    """

    def __init__(self, config: ClassBalancedConfig, context: Context):
        w = effective_number_weights(class_counts(context), config.beta)
        self.weights = DeferredWeights(w, config.from_, context.device, context.dtype)
        self.state_dict, self.load_state_dict = self.weights.state_dict, self.weights.load_state_dict
        self.by_sum, self.together = config.normalise == "weights", context.together

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """w_y CE of each example, (n,)."""
        return self._of(batch.labels, batch.n) * cross_entropy(batch, logits)

    @hookimpl(wrapper=True)
    def example_weights(self, step: Step, weights: Tensor) -> Generator[None, Tensor, Tensor]:
        """The method's weight times that of the class."""
        recorded = yield
        return recorded * self._of(step.labels, step.n)

    @hookimpl
    def finish_epoch(self, epoch: int) -> None:
        """Begin to weight if it is time."""
        self.weights.finish_epoch(epoch)

    def _of(self, labels: Tensor, n: int) -> Tensor:
        w = self.weights.w[labels]
        return w / (self.together.total(w.sum()) / n) if self.by_sum else w
