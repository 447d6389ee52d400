"""What a method sees of one optimisation step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core.data.batch import Batch, one_hot
from reweight_core.engine.lookahead import STRATEGIES, HeadLookAhead, LookAhead, LookAheadRequest, Strategy
from reweight_core.engine.passes import Passes
from reweight_core.engine.virtual_step import VirtualStep
from reweight_core.errors import UserError


class Step:
    """One batch, its logits and losses, and the look-ahead. All tensors are detached.

    The real forward pass runs when its result is first asked for.

    Attributes:
        ids: positions in the training set, int64 (n,); per-example state is indexed by them.
        inputs: augmented, normalised images (n, channels, height, width), mixed if a component mixes them.
        labels: observed labels, int64 (n,).
        original: the batch before components transformed it.
        optimizer_state: the optimizer's state by parameter (momentum buffers), to be read only.
        lr: current learning rate, a tensor without dimensions.
        looks_ahead: False between the steps of ``--meta-every``; a method then weights without looking ahead.
        look: the last look-ahead, or None; None again when the step is over.
        method_gradient: what the method made of D, before components added to it; None until it did.
    """

    def __init__(
        self,
        batch: Batch,
        passes: Passes,
        lr: Tensor,
        strategy: Strategy | None,
        update: VirtualStep | None,
        draw_meta_batch: Callable[[], Batch],
        looks_ahead: bool = True,
        original: Batch | None = None,
        optimizer_state: Mapping[Tensor, Mapping[str, Any]] | None = None,
    ):
        self.ids, self.inputs, self.labels = batch.ids, batch.inputs, batch.labels
        self.original, self.optimizer_state = original or batch, optimizer_state or {}
        self._batch = batch
        self.lr, self.looks_ahead = lr, looks_ahead
        self.look: LookAhead | None = None
        self.method_gradient: Tensor | None = None
        self._passes, self._strategy, self._update = passes, strategy, update
        passes.begin(self.inputs)
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
        if self.looks_ahead and self._strategy and self._strategy.head_alone and not self._passes.has_meta_features:
            # without a graph of its own, the meta batch takes least memory while there is no other
            self._passes.features_at(self.meta.inputs)
        logits = self._passes.forward().detach()
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @cached_property
    def _log_probabilities(self) -> Tensor:
        return self.logits.log_softmax(1)

    @cached_property
    def one_hot(self) -> Tensor:
        """The labels as rows, (n, C)."""
        return one_hot(self.labels, self.logits.shape[1], self.logits.dtype)

    @cached_property
    def targets(self) -> Tensor:
        """What the loss compares with, y, as rows (n, C): the labels, unless a component mixes or smooths them."""
        return self.one_hot if self._batch.targets is None else self._batch.targets.to(self.logits.dtype)

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax p of the logits, (n, C)."""
        return self._log_probabilities.exp()

    @cached_property
    def losses(self) -> Tensor:
        """Cross-entropy of each example with its target, (n,)."""
        if self._batch.targets is not None:
            return -(self.targets * self._log_probabilities).sum(1)
        return -self._log_probabilities.gather(1, self.labels[:, None]).squeeze(1)

    @cached_property
    def D(self) -> Tensor:
        """Gradient (p - y)/n of the batch's mean loss with respect to its logits, (n, C)."""
        return (self.probabilities - self.targets) / self.n

    @overload
    def look_ahead(
        self,
        D_prime: Tensor | Callable[[], Tensor],
        *,
        virtual_step: bool = True,
        unit_rate: bool = False,
        scope: Literal["all"] = "all",
        update: VirtualStep | None = None,
        also: Tensor | None = None,
    ) -> LookAhead: ...

    @overload
    def look_ahead(
        self,
        D_prime: Tensor | Callable[[], Tensor],
        *,
        virtual_step: bool = True,
        unit_rate: bool = False,
        scope: Literal["head"],
        update: VirtualStep | None = None,
        also: Tensor | None = None,
    ) -> HeadLookAhead: ...

    def look_ahead(
        self,
        D_prime: Tensor | Callable[[], Tensor],
        *,
        virtual_step: bool = True,
        unit_rate: bool = False,
        scope: Literal["all", "head"] = "all",
        update: VirtualStep | None = None,
        also: Tensor | None = None,
    ) -> LookAhead:
        """Take one virtual step with the logit gradient D' and evaluate the meta batch after it.

        The step is one of plain SGD at the current learning rate unless the method or the run asks for another.

        Args:
            D_prime: logit gradient (n, C), built from whatever the objective is to be differentiated in; or a
                function that returns it. A function saves memory where the meta batch can then be done with before
                the training batch's forward pass runs: without a virtual step, and with ``scope="head"``.
            virtual_step: if False, theta_hat = theta (D' is zero, or its step is to be ignored).
            unit_rate: take the derivative at rate 1 instead of the learning rate, for rules that only use its
                direction; a learning rate of 0 is then no special case.
            scope: ``head`` for a step of the last linear layer alone, whose derivative has a closed form; the
                look-ahead then also knows the training batch's logits after it, as `training_logits`.
            update: rule of the virtual step, with a rate of its own, in place of the run's.
            also: more images that share the meta batch's forward pass (BatchNorm's statistics are those of all); their
                logits follow the meta batch's in the look-ahead's.

        Raises:
            UserError: if the method's record says that it does not look ahead.
        """
        strategy = STRATEGIES["head"] if scope == "head" else self._strategy
        if strategy is None:
            raise UserError(
                "the method looks ahead, but its record says that it does not: report it to the plugin's author "
                '(looks_ahead="network" is missing)'
            )
        inputs = self.meta.inputs if also is None else torch.cat([self.meta.inputs, also])
        update = update or self._update
        request = LookAheadRequest(
            passes=self._passes,
            inputs=inputs,
            D_prime=D_prime if callable(D_prime) else lambda: D_prime,
            update=update if virtual_step else None,
            rate=torch.ones_like(self.lr) if unit_rate else update.rate if update else self.lr,
        )
        if scope == "head":
            # without a graph of its own, this pass takes least memory while there is no other
            self._passes.features_at(inputs)
        self.look = strategy.start(request)
        return self.look

    def meta_loss(self, D_prime: Tensor, *, virtual_step: bool = True, unit_rate: bool = False) -> Tensor:
        """Return the mean cross-entropy of the meta batch after a virtual step (arguments as `look_ahead`).

        The scalar is differentiable, once, in whatever D' was built from.
        """
        look = self.look_ahead(D_prime, virtual_step=virtual_step, unit_rate=unit_rate)
        return look.close(F.cross_entropy(look.logits, self.meta.labels))
