"""What a method sees of one optimisation step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core.lookahead import LookAhead, Request, Strategy, head
from reweight_core.passes import Passes
from reweight_core.virtual_step import VirtualStep


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

    The real forward pass runs when its result is first asked for.

    Attributes:
        ids: positions in the training set, int64 (n,); per-example state is indexed by them.
        inputs: augmented, normalised images (n, channels, height, width).
        labels: observed labels, int64 (n,).
        lr: current learning rate, a tensor without dimensions.
        looks_ahead: False between the steps of ``--meta-every``; a method then weights without looking ahead.
        look: the last look-ahead, or None.
    """

    def __init__(
        self,
        batch: Batch,
        passes: Passes,
        lr: Tensor,
        strategy: Strategy,
        update: VirtualStep | None,
        draw_meta_batch: Callable[[], Batch],
        looks_ahead: bool = True,
    ):
        self.ids, self.inputs, self.labels = batch.ids, batch.inputs, batch.labels
        self.lr, self.looks_ahead = lr, looks_ahead
        self.look: LookAhead | None = None
        self._passes, self._strategy, self._update = passes, strategy, update
        self._draw_meta_batch = draw_meta_batch

    @property
    def n(self) -> int:
        """Number of examples in the batch."""
        return len(self.ids)

    @property
    def meta_value(self) -> Tensor | None:
        """Value of the last look-ahead's objective, or None."""
        return None if self.look is None else self.look.value

    @cached_property
    def meta(self) -> Batch:
        """The step's batch of clean examples, m of them."""
        return self._draw_meta_batch()

    @cached_property
    def logits(self) -> Tensor:
        """Logits l of the real forward pass in train mode, (n, C), at least single precision."""
        if self.looks_ahead and self._strategy is head:
            # without a graph of its own, the meta batch takes least memory while there is no other
            self._passes.features_at(self.meta.inputs)
        logits = self._passes.forward(self.inputs).detach()
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @cached_property
    def _log_probabilities(self) -> Tensor:
        return self.logits.log_softmax(1)

    @cached_property
    def one_hot(self) -> Tensor:
        """The labels y as rows, (n, C)."""
        # comparing with a range does what F.one_hot does, without its reading of the labels' maximum
        classes = torch.arange(self.logits.shape[1], device=self.labels.device)
        return (self.labels[:, None] == classes).to(self.logits.dtype)

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax p of the logits, (n, C)."""
        return self._log_probabilities.exp()

    @cached_property
    def losses(self) -> Tensor:
        """Cross-entropy of each example, (n,)."""
        return -self._log_probabilities.gather(1, self.labels[:, None]).squeeze(1)

    @cached_property
    def D(self) -> Tensor:
        """Gradient (p - y)/n of the batch's mean loss with respect to its logits, (n, C)."""
        return (self.probabilities - self.one_hot) / self.n

    def look_ahead(
        self,
        D_prime: Tensor | Callable[[], Tensor],
        *,
        virtual_step: bool = True,
        unit_rate: bool = False,
    ) -> LookAhead:
        """Take one virtual step with the logit gradient D' and evaluate the meta batch after it.

        The step is one of plain SGD at the current learning rate unless the run asks for another.

        Args:
            D_prime: logit gradient (n, C), built from whatever the objective is to be differentiated in; or a
                function that returns it. Without a virtual step a function saves memory: the meta batch is then
                done with before the training batch's forward pass runs.
            virtual_step: if False, theta_hat = theta (D' is zero, or its step is to be ignored).
            unit_rate: take the derivative at rate 1 instead of the learning rate, for rules that only use its
                direction; a learning rate of 0 is then no special case.
        """
        self.look = self._strategy(
            Request(
                passes=self._passes,
                inputs=self.meta.inputs,
                D_prime=D_prime if callable(D_prime) else lambda: D_prime,
                update=self._update if virtual_step else None,
                rate=torch.ones_like(self.lr) if unit_rate else self.lr,
            )
        )
        return self.look

    def meta_loss(self, D_prime: Tensor, *, virtual_step: bool = True, unit_rate: bool = False) -> Tensor:
        """Return the mean cross-entropy of the meta batch after a virtual step (arguments as `look_ahead`).

        The scalar is differentiable, once, in whatever D' was built from.
        """
        look = self.look_ahead(D_prime, virtual_step=virtual_step, unit_rate=unit_rate)
        return look.close(F.cross_entropy(look.logits, self.meta.labels))
