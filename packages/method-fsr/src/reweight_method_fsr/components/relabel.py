"""Momentum re-labelling (FSR, section 4.3): a second loss with pseudo-labels from an example's earlier logits."""

from __future__ import annotations

import warnings
from collections.abc import Generator

import torch
from torch import Tensor

from reweight_core import Context, Step, hookimpl
from reweight_method_fsr.options import RelabelConfig


class Relabel:
    """Adds p times the mean cross-entropy with pseudo-labels to the real update; the look-ahead does not see it."""

    def __init__(self, config: RelabelConfig, context: Context):
        if 0 < context.epochs <= config.warmup_epochs:
            warnings.warn(
                f"--relabel-warmup-epochs {config.warmup_epochs}: pseudo-labels never count in the {context.epochs} "
                "epochs of this run",
                stacklevel=2,
            )
        self.config = config
        shape = (context.train_size, context.num_classes)
        self._average = context.by_example(torch.zeros(shape, device=context.device, dtype=context.dtype))
        self._counts = torch.tensor(config.warmup_epochs == 0, device=context.device)

    @hookimpl(wrapper=True)
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Generator[None, Tensor, Tensor]:
        """D' + p (p_i - y^_i)/n with y^ from earlier visits; then A <- beta norm(A) + (1 - beta) l (Eq. 7)."""
        D_prime = yield
        beta = self.config.decay
        earlier = self._average.index_select(0, step.ids)
        earlier = normalised(earlier, step.total(earlier.square().sum()) / (step.n * earlier.shape[1]))
        pseudo_labels = (earlier / self.config.temperature).softmax(1)
        extra = self.config.multiplier / step.n * (step.probabilities - pseudo_labels)
        self._average.index_copy_(0, step.ids, beta * earlier + (1 - beta) * step.logits.to(earlier.dtype))
        return D_prime + torch.where(self._counts, extra, 0).to(D_prime.dtype)

    @hookimpl
    def finish_epoch(self, epoch: int) -> None:
        """The pseudo-labels count from epoch E on."""
        self._counts.fill_(epoch >= self.config.warmup_epochs)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged logits A, (N, C)."""
        return {"average": self._average, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self._average.copy_(state["average"])
        self._counts.copy_(state["counts"])


def normalised(A: Tensor, mean_square: Tensor) -> Tensor:
    """Divide a batch of averaged logits (n, C) by the root of the mean square of all its entries."""
    return A / (mean_square + 1e-8).sqrt()
