"""Gen-label, or MSLG: Algan & Ulusoy, "Meta Soft Label Generation for Noisy Labels" (ICPR 2020)."""

import torch
from torch import Tensor

from reweight_core import Context, Step, VirtualSGD, hookimpl
from reweight_method_trusted.options import GenLabelConfig


class GenLabel:
    """Trains on label distributions, which start near the observed labels and follow the clean loss.

    Attributes:
        Y: logits of the label distributions y^d = softmax(Y) of all training examples, (N, C).
    """

    def __init__(self, config: GenLabelConfig, context: Context):
        self.config = config
        self.warmup_epochs = context.epochs // 3 if config.warmup_epochs is None else config.warmup_epochs
        classes = torch.arange(context.num_classes, device=context.device)
        self.Y = config.label_scale * (context.train.labels[:, None] == classes).to(context.dtype)
        self.update = VirtualSGD(torch.tensor(config.virtual_lr, device=context.device, dtype=context.dtype))

    @hookimpl
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """D' of the loss (KL(p || y^d) + g H(p)) / C with the label distributions after their own step, (n, C)."""
        if step.epoch < self.warmup_epochs:
            return step.D
        Y, p, log_p = self.Y.index_select(0, step.ids), step.probabilities, step.logits.log_softmax(1)
        scale = step.n * p.shape[1]
        if step.looks_ahead:
            look = step.look_ahead(
                softmax_pullback(p, log_p - Y.requires_grad_().log_softmax(1)) / scale, update=self.update
            )
            meta_loss = look.close(step.meta_objective(look.logits))
            (gradient,) = torch.autograd.grad(meta_loss, Y)
            Y = Y.detach() - self.config.label_lr * step.n * gradient
            self.Y.index_copy_(0, step.ids, Y)
        return softmax_pullback(p, (1 - self.config.entropy) * log_p - Y.log_softmax(1)) / scale

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
