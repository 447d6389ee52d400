"""Soft labels learned by looking ahead: Vyas, Saxena & Voice, "Learning Soft Labels via Meta Learning" (2020).

Chen et al. (GDW, NeurIPS 2021) describe it as a learned label smoothing for each example, which is the default; the
paper itself learns whole label rows.
"""

import torch
from torch import Tensor

from reweight_core import Context, Step, hookimpl
from reweight_method_trusted.options import SoftLabelConfig


class SoftLabel:
    """Trains on labels of its own, which start as the observed ones and follow the clean loss.

    Attributes:
        learned: of each training example the smoothing e, (N,), or the label row, (N, C).
    """

    def __init__(self, config: SoftLabelConfig, context: Context):
        self.config = config
        self.rows = config.soft_labels == "rows"
        if self.rows:
            classes = torch.arange(context.num_classes, device=context.device)
            self.learned = (context.train.labels[:, None] == classes).to(context.dtype)
        else:
            self.learned = torch.zeros(context.train_size, device=context.device, dtype=context.dtype)

    @hookimpl
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """D' = D + (y - y~)/n = (p - y~)/n with the labels y~ after their own step, (n, C)."""
        learned = self.learned.index_select(0, step.ids)
        if step.looks_ahead:
            meta_loss = step.meta_loss(self._gradient(step, learned.requires_grad_()))
            (gradient,) = torch.autograd.grad(meta_loss, learned)
            learned = self._moved(learned.detach(), self.config.label_lr * step.n * gradient)
            self.learned.index_copy_(0, step.ids, learned)
        return self._gradient(step, learned)

    @hookimpl
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """What is left of the observed label, 1 - e or y~ there, (n,)."""
        learned = self.learned.index_select(0, step.ids)
        return (learned * step.one_hot).sum(1) if self.rows else 1 - learned

    def _gradient(self, step: Step, learned: Tensor) -> Tensor:
        if not self.rows:
            e = learned[:, None]
            learned = (1 - e) * step.one_hot + e / step.one_hot.shape[1]
        return step.D + (step.one_hot - learned) / step.n

    def _moved(self, learned: Tensor, change: Tensor) -> Tensor:
        if not self.rows:
            return (learned - change).clamp(0, 1)
        # along the simplex and back onto it; the sum of what is cut off stays positive, so no row is empty
        row = (learned - (change - change.mean(1, keepdim=True))).clamp(min=0)
        return row / row.sum(1, keepdim=True)

    def state_dict(self) -> dict[str, Tensor]:
        """What is learned of all training examples."""
        return {"learned": self.learned}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.learned.copy_(state["learned"])
