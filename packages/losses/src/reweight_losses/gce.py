"""Generalised cross-entropy (Zhang & Sabuncu, NeurIPS 2018)."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from reweight_core import Batch, Context, Step, cross_entropy, hookimpl
from reweight_losses.options import GCEConfig

PRUNE_EVERY = 10
"""Epochs between two choices of the examples to keep."""


class GCE:
    """L_q = (1 - p_y^q) / q, cross-entropy for q -> 0 and mean absolute error for q = 1 (section 3.2).

    Its gradient is that of cross-entropy with the instance weight p_y^q.
    """

    def __init__(self, config: GCEConfig, context: Context):
        self.q = config.q

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """L_q of each example, (n,)."""
        return self._loss(cross_entropy(batch, logits))

    @hookimpl(wrapper=True)
    def example_weights(self, step: Step, weights: Tensor) -> Generator[None, Tensor, Tensor]:
        """The method's weight times p_y^q."""
        recorded = yield
        return recorded * step.probabilities.gather(1, step.labels[:, None]).squeeze(1) ** self.q

    def _loss(self, ce: Tensor) -> Tensor:
        # p_y^q = exp(-q CE), which does not underflow before it has to
        return -torch.expm1(-self.q * ce) / self.q


class TruncatedGCE(GCE):
    """L_q where p_y > k, the constant L_q(k) elsewhere (section 3.3), the choice being held fixed between epochs.

    An example that is out has no gradient. The choice is made anew every `PRUNE_EVERY` epochs by the network that
    was best on the validation set, or by the present one (Algorithm 1). Other than training examples are all kept.
    """

    def __init__(self, config: GCEConfig, context: Context):
        super().__init__(config, context)
        assert config.truncate is not None, "else there is nothing to truncate"
        self.k = config.truncate
        self.L_k = self._loss(torch.tensor(-math.log(self.k))).item()
        self.start = math.ceil(context.epochs / 3) if config.truncate_from is None else config.truncate_from
        self.context = context
        self.kept = torch.ones(context.train_size, dtype=torch.bool, device=context.device)

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """L_q of the examples that are kept, L_q(k) of the others, (n,)."""
        losses = self._loss(cross_entropy(batch, logits))
        if batch.source != "train":
            return losses
        return torch.where(self.kept[batch.ids], losses, self.L_k)

    @hookimpl(wrapper=True)
    def example_weights(self, step: Step, weights: Tensor) -> Generator[None, Tensor, Tensor]:
        """The method's weight times p_y^q, 0 for an example that is out."""
        recorded = yield from super().example_weights(step, weights)
        return recorded * self.kept[step.ids] if step.source == "train" else recorded

    @hookimpl
    def finish_epoch(self, epoch: int) -> Mapping[str, float]:
        """Choose the examples to keep; figure: their share."""
        if epoch >= self.start and (epoch - self.start) % PRUNE_EVERY == 0:
            examples = self.context.train
            p = self.context.predict(examples, self.context.best_network()).logits.softmax(1)
            self.kept.copy_(p.gather(1, examples.labels[:, None]).squeeze(1) > self.k)
        return {"kept": self.kept.float().mean().item()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return which examples are kept."""
        return {"kept": self.kept}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.kept.copy_(state["kept"])


def build(config: GCEConfig, context: Context) -> GCE:
    """Return the loss that the options ask for."""
    return GCE(config, context) if config.truncate is None else TruncatedGCE(config, context)
