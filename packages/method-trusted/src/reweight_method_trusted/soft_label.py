"""Soft labels learned by looking ahead: Vyas, Saxena & Voice, "Learning Soft Labels via Meta Learning" (2020).

Chen et al. (GDW, NeurIPS 2021) describe it as a learned label smoothing for each example, which is the default; the
paper itself learns whole label rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core import Batch, Context, Step, hookimpl, target_rows
from reweight_method_trusted.options import SoftLabelConfig


class SoftLabel:
    """Trains on labels y~ of its own, which start as the observed ones and follow the clean loss.

    Attributes:
        learned: of each training example the smoothing e, (N,), or the label row y~, (N, C).
    """

    def __init__(self, config: SoftLabelConfig, context: Context):
        self.label_lr, self.rows = config.label_lr, config.soft_labels == "rows"
        one_hot = F.one_hot(context.train.labels, context.num_classes).to(context.dtype)
        self.learned = context.by_example(one_hot if self.rows else torch.zeros_like(one_hot[:, 0]))

    @hookimpl
    def follow_forward(self, step: Step) -> None:
        """The labels' own step, against the derivative of the clean loss after a virtual step along (p - y~)/n."""
        if not step.looks_ahead:
            return
        learned = self.learned.index_select(0, step.ids).requires_grad_()
        meta_loss = step.meta_loss((step.probabilities - self._labels(learned, step.one_hot)) / step.n)
        (gradient,) = torch.autograd.grad(meta_loss, learned)
        change = self.label_lr * step.n * gradient
        if self.rows:
            # along the simplex and back onto it; the sum of what is left is at least 1, so no row is empty
            row = (learned.detach() - change + change.mean(1, keepdim=True)).clamp(min=0)
            moved = row / row.sum(1, keepdim=True)
        else:
            moved = (learned.detach() - change).clamp(0, 1)
        self.learned.index_copy_(0, step.ids, moved)

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The cross-entropy with the labels y~ after their step, (n,); of trusted examples with their labels."""
        y = target_rows(batch, logits.shape[1]).to(logits.dtype)
        if batch.source == "train":
            learned = self._labels(self.learned.index_select(0, batch.ids), y)
            y = learned if batch.trusted is None else torch.where(batch.trusted[:, None], y, learned)
        return -(y * logits.log_softmax(1)).sum(1)

    @hookimpl
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """What is left of the observed label, 1 - e or y~ there, (n,)."""
        learned = self.learned.index_select(0, step.ids)
        return (learned * step.one_hot).sum(1) if self.rows else 1 - learned

    def _labels(self, learned: Tensor, y: Tensor) -> Tensor:
        """Return y~ as rows (n, C); with a smoothing e it is (1 - e) y + e/C."""
        if self.rows:
            return learned
        e = learned[:, None]
        return (1 - e) * y + e / y.shape[1]

    def state_dict(self) -> dict[str, Tensor]:
        """What is learned of all training examples."""
        return {"learned": self.learned}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.learned.copy_(state["learned"])
