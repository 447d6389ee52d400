"""What a method sees of one optimisation step."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core.lookahead import LookAhead, Strategy
from reweight_core.passes import Passes


@attrs.frozen(eq=False)
class Batch:
    """Examples as a step sees them.

    Attributes:
        ids: positions in their set, int64 (n,).
        inputs: augmented, normalised images (n, channels, height, width).
        labels: observed labels, int64 (n,).
    """

    ids: Tensor
    inputs: Tensor
    labels: Tensor


class Step:
    """One batch, its logits and losses, and the look-ahead. All tensors are detached.

    Attributes:
        ids: positions in the training set, int64 (n,); per-example state is indexed by them.
        inputs: augmented, normalised images (n, channels, height, width).
        labels: observed labels, int64 (n,).
        one_hot: the labels as rows, (n, C).
        logits: logits l of the real forward pass in train mode, (n, C).
        probabilities: softmax p of the logits, (n, C).
        losses: cross-entropy of each example, (n,).
        D: gradient (p - y)/n of the batch's mean loss with respect to its logits, (n, C).
        lr: current learning rate, a tensor without dimensions.
        look: the last look-ahead, or None.
    """

    def __init__(
        self,
        batch: Batch,
        passes: Passes,
        lr: Tensor,
        strategy: Strategy,
        draw_meta_batch: Callable[[], Batch],
    ):
        attached = passes.forward(batch.inputs)
        self.ids, self.inputs, self.labels = batch.ids, batch.inputs, batch.labels
        self.lr = lr
        self.logits = attached.detach().to(torch.promote_types(attached.dtype, torch.float32))
        log_p = self.logits.log_softmax(1)
        # comparing with a range does what F.one_hot does, without its reading of the labels' maximum
        classes = torch.arange(self.num_classes, device=self.labels.device)
        self.one_hot = (self.labels[:, None] == classes).to(log_p.dtype)
        self.probabilities = log_p.exp()
        self.losses = -log_p.gather(1, self.labels[:, None]).squeeze(1)
        self.D = (self.probabilities - self.one_hot) / self.n
        self.look: LookAhead | None = None
        self._passes, self._strategy, self._draw_meta_batch = passes, strategy, draw_meta_batch
        self._meta: Batch | None = None

    @property
    def n(self) -> int:
        """Number of examples in the batch."""
        return self.logits.shape[0]

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.logits.shape[1]

    @property
    def meta(self) -> Batch:
        """The step's batch of clean examples, m of them."""
        if self._meta is None:
            self._meta = self._draw_meta_batch()
        return self._meta

    def look_ahead(self, D_prime: Tensor, *, virtual_step: bool = True, unit_rate: bool = False) -> LookAhead:
        """Take one virtual step of plain SGD with the logit gradient D' and evaluate the meta batch after it.

        Args:
            D_prime: logit gradient (n, C), built from whatever the objective is to be differentiated in.
            virtual_step: if False, theta_hat = theta (D' is zero, or its step is to be ignored) and the
                derivative is taken at rate 1.
            unit_rate: take the derivative at rate 1 instead of the learning rate, for rules that only use its
                direction; a learning rate of 0 is then no special case.
        """
        one = torch.ones_like(self.lr)
        rate = one if unit_rate or not virtual_step else self.lr
        step_size = self.lr if virtual_step else None
        self.look = self._strategy(self._passes, self.meta.inputs, D_prime, step_size, rate)
        return self.look

    def meta_loss(self, D_prime: Tensor, *, virtual_step: bool = True, unit_rate: bool = False) -> Tensor:
        """Return the mean cross-entropy of the meta batch after a virtual step (arguments as `look_ahead`).

        The scalar is differentiable, once, in whatever D' was built from.
        """
        look = self.look_ahead(D_prime, virtual_step=virtual_step, unit_rate=unit_rate)
        return look.close(F.cross_entropy(look.logits, self.meta.labels))
