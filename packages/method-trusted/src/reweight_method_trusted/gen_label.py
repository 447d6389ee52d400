"""Gen-label, or MSLG: Algan & Ulusoy, "Meta Soft Label Generation for Noisy Labels" (ICPR 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core import Batch, Context, Step, VirtualSGD, hookimpl
from reweight_method_trusted.options import GenLabelConfig


class GenLabel:
    """Trains on label distributions, which start near the observed labels and follow the clean loss.

    Attributes:
        Y: logits of the label distributions y^d = softmax(Y) of all training examples, (N, C).
        learns: whether labels are learned in this epoch, after the plain training of the first ones.
    """

    def __init__(self, config: GenLabelConfig, context: Context):
        self.config, self.learns = config, False
        self.warmup_epochs = context.epochs // 3 if config.warmup_epochs is None else config.warmup_epochs
        one_hot = F.one_hot(context.train.labels, context.num_classes).to(context.dtype)
        self.Y = context.by_example(config.label_scale * one_hot)
        self.update = VirtualSGD(torch.tensor(config.virtual_lr, device=context.device, dtype=context.dtype))

    @hookimpl
    def follow_forward(self, step: Step) -> None:
        """The labels' own step, against the derivative of the clean loss after a virtual step on KL(p || y^d)/C."""
        self.learns = step.epoch >= self.warmup_epochs
        if not (self.learns and step.looks_ahead):
            return
        Y, p = self.Y.index_select(0, step.ids).requires_grad_(), step.probabilities
        rows = softmax_pullback(p, step.logits.log_softmax(1) - Y.log_softmax(1)) / p.shape[1]
        look = step.look_ahead(rows / step.n, update=self.update)
        (gradient,) = torch.autograd.grad(look.close(step.meta_objective(look.logits)), Y)
        self.Y.index_copy_(0, step.ids, Y.detach() - self.config.label_lr * step.n * gradient)

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """(KL(p || y^d) + g H(p))/C with the label distributions after their step, (n,); CE/C of trusted examples."""
        plain = F.cross_entropy(logits, batch.labels, reduction="none")
        if batch.source != "train" or not self.learns:
            return plain
        log_p, log_y = logits.log_softmax(1), self.Y.index_select(0, batch.ids).log_softmax(1)
        losses = (log_p.exp() * ((1 - self.config.entropy) * log_p - log_y)).mean(1)
        return losses if batch.trusted is None else torch.where(batch.trusted, plain / logits.shape[1], losses)

    @hookimpl
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """The label distribution at the observed label, y^d_y, (n,)."""
        return (self.Y.index_select(0, step.ids).softmax(1) * step.one_hot).sum(1)

    def state_dict(self) -> dict[str, Tensor]:
        """The label logits, (N, C)."""
        return {"Y": self.Y}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.Y.copy_(state["Y"])


def softmax_pullback(p: Tensor, a: Tensor) -> Tensor:
    """Return p (a - <p, a>): the gradient in the logits of a function of p with the gradient `a`, each (n, C)."""
    return p * (a - (p * a).sum(1, keepdim=True))
