"""INSW: the weighting part of Hu et al., "Learning Data Manipulation for Augmentation and Weighting" (NeurIPS 2019)."""

import torch
from torch import Tensor

from reweight_core import Context, Step, hookimpl
from reweight_method_trusted.options import INSWConfig

MIN_WEIGHT = 1e-5
"""Lower bound of a weight, that of the official code."""


class INSW:
    """Weights each example by a number of its own, which follows the clean loss.

    Attributes:
        w: the weights of all training examples before they are normalised, (N,).
    """

    def __init__(self, config: INSWConfig, context: Context):
        self.config = config
        self.w = context.by_example(torch.ones(context.train_size, device=context.device, dtype=context.dtype))

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """The weights after their own step, normalised to a mean of 1 over the batch, (n,)."""
        w = self.w.index_select(0, step.ids)
        if step.looks_ahead:
            # theta^ = theta - alpha/n sum_i w_i grad l_i
            meta_loss = step.meta_loss(w.requires_grad_()[:, None] * step.D)
            (gradient,) = torch.autograd.grad(meta_loss, w)
            # n times: the paper's virtual step is the sum over the examples, and its w_i moves by alpha <G, grad l_i>
            change = self.config.weight_lr * step.n * gradient
            w = (w.detach() / self.config.weight_divisor - change).clamp(min=MIN_WEIGHT)
            self.w.index_copy_(0, step.ids, w)
        if self.config.normalise == "softmax":
            return step.part(step.n * (step.whole(w) / self.config.temperature).softmax(0))
        return step.n * w / step.total(w.sum())

    def state_dict(self) -> dict[str, Tensor]:
        """The weights, (N,)."""
        return {"w": self.w}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.w.copy_(state["w"])
