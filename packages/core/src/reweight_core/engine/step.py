"""What a method sees of one optimisation step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

import attrs
import torch
from torch import Tensor

from reweight_core.data.batch import Batch, one_hot
from reweight_core.data.inputs import Inputs, joined
from reweight_core.engine.lookahead import STRATEGIES, HeadLookAhead, LookAhead, LookAheadRequest, Strategy
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.once import once
from reweight_core.engine.passes import Passes
from reweight_core.engine.stage import TRAINING, Stage
from reweight_core.engine.virtual_step import VirtualStep
from reweight_core.errors import UserError
from reweight_core.machine.together import ALONE, Share, Together

Losses = Callable[[Batch, Tensor], Tensor]
"""Gives the loss of each example (n,) from a batch and its logits (n, C), differentiable in these."""


@attrs.frozen(eq=False)
class Surroundings:
    """What a step is part of.

    Attributes:
        stage: the stage of the run.
        epoch: number of epochs finished.
        losses: the training loss.
        meta_losses: the loss of the meta batch.
        follow_forward: is told of the step once its logits are known, before its losses.
        optimizer_state: the optimizer's state by parameter.
        together: the processes of the run.
    """

    stage: Stage = TRAINING
    epoch: int = 0
    losses: Losses = cross_entropy
    meta_losses: Losses = cross_entropy
    follow_forward: Callable[[Step], object] = lambda step: None
    optimizer_state: Mapping[Tensor, Mapping[str, Any]] = attrs.field(factory=dict)
    together: Together = ALONE


class Step:
    """One batch, its logits and losses, and the look-ahead. All tensors are detached.

    The real forward pass runs when its result is first asked for. In a run of several processes the tensors with a row
    for each example, shapes (n, ...) below, have those of this process's share of the batch; `n` is the whole batch's
    in every process, `total` sums over it, and `part` and `whole` go from its rows to the process's and back.

    Attributes:
        stage: the stage of the run; constant within an epoch.
        epoch: number of epochs finished, in all stages; constant within an epoch.
        source: what the batch was taken from: ``train``, ``meta``, or ``both``.
        trusted: which examples are trusted ones, bool (n,): those of the meta set in a stage on both, and those of
            the training set that are with ``--meta-use both``; None where none can be.
        n: number of examples in the batch, all processes together.
        ids: positions in the source, int64 (n,); per-example state is indexed by them, in stages on the training set.
        inputs: what the network takes: augmented, normalised images (n, channels, height, width), mixed if a component
            mixes them; in a loop of the user's own whatever that gave (`Inputs`).
        dtype: number type of weights and D, known before the logits.
        labels: observed labels, int64 (n,).
        original: the batch before components transformed it.
        optimizer_state: the optimizer's state by parameter (momentum buffers), to be read only.
        lr: current learning rate, a tensor without dimensions.
        looks_ahead: False between the steps of ``--meta-every``; a method then weights without looking ahead.
        look: the last look-ahead, or None; None again when the step is over.
        method_gradient: what the method made of D, before components added to it; None until it did.
        weights: what `generate_weights` gave, (n,) or (n, C), but 1 for trusted examples of the training set; when the
            step is weighed, times the user's own weights (``--weights``); None until it did.
        D_prime: the logit gradient of the real update, (n, C); None until it is known.
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
        surroundings: Surroundings | None = None,
    ):
        self._surroundings = surroundings or Surroundings()
        self.stage, self.epoch = self._surroundings.stage, self._surroundings.epoch
        self.ids, self.inputs, self.labels = batch.ids, batch.inputs, batch.labels
        self.n = batch.n
        self.source, self.trusted, self.factors = batch.source, batch.trusted, batch.factors
        self.original, self.optimizer_state = original or batch, self._surroundings.optimizer_state
        self._batch = batch
        self.lr, self.looks_ahead, self.dtype = lr, looks_ahead, passes.dtype
        self.look: LookAhead | None = None
        self.method_gradient: Tensor | None = None
        self.weights: Tensor | None = None
        self.D_prime: Tensor | None = None
        self._passes, self._strategy, self._update = passes, strategy, update
        remembers = looks_ahead and strategy is not None and strategy.takes_tangents
        passes.begin(self.inputs, remembers, self.shares)
        self._draw_meta_batch, self._is_followed = draw_meta_batch, False

    def total(self, part: Tensor) -> Tensor:
        """Return a sum over the whole batch from the sum over this process's share; differentiable.

        Whatever a method sums over the examples of a batch goes through it. With one process it is what it is given.
        """
        return self._surroundings.together.total(part)

    def part(self, whole: Tensor) -> Tensor:
        """Return this process's rows of what was made for the whole batch, (`n`, ...).

        Random numbers that are drawn for the whole batch, with one state in every process, do not depend on the number
        of processes.
        """
        return self._batch.part(whole)

    def whole(self, part: Tensor) -> Tensor:
        """Return the rows of the whole batch, (`n`, ...), from those of this process's examples; differentiable.

        What compares the examples of a batch with each other, their order by loss for example, takes these.
        """
        return self._surroundings.together.whole(part, self.shares[0])

    @property
    def kept_plain(self) -> Tensor | None:
        """Which examples have weight 1 and D' = D whatever plugins say, bool (n,): the training set's trusted ones."""
        return self.trusted if self.source == "train" else None

    @property
    def meta_value(self) -> Tensor | None:
        """Value of the last look-ahead's objective, or None."""
        return None if self.look is None else self.look.value

    @once
    def meta(self) -> Batch:
        """The step's batch of clean examples, m of them (with several processes, this one's share)."""
        return self._draw_meta_batch()

    @property
    def shares(self) -> list[Share]:
        """Which part of which batch `inputs` are, in several processes; for passes of further networks."""
        return _shares_of(self._batch)

    @once
    def logits(self) -> Tensor:
        """Logits l of the real forward pass in train mode, (n, C), at least single precision."""
        if self.looks_ahead and self._strategy and self._strategy.head_alone and not self._passes.has_meta_features:
            # without a graph of its own, the meta batch takes least memory while there is no other
            self._passes.features_at(self.meta.inputs, _shares_of(self.meta))
        return _at_least_single(self._passes.forward().detach())

    @once
    def _log_probabilities(self) -> Tensor:
        return self.logits.log_softmax(1)

    @once
    def one_hot(self) -> Tensor:
        """The labels as rows, (n, C)."""
        return one_hot(self.labels, self.logits.shape[1], self.logits.dtype)

    @once
    def targets(self) -> Tensor:
        """What the loss compares with, y, as rows (n, C): the labels, unless a component mixes or smooths them."""
        return self.one_hot if self._batch.targets is None else self._batch.targets.to(self.logits.dtype)

    @once
    def probabilities(self) -> Tensor:
        """Softmax p of the logits, (n, C)."""
        return self._log_probabilities.exp()

    @once
    def _losses_and_rows(self) -> tuple[Tensor, Tensor]:
        logits = self.logits
        if self._is_followed:
            raise UserError("the losses and D of a step are not known yet in follow_forward: use step.logits")
        self._is_followed = True
        self._surroundings.follow_forward(self)
        self._is_followed = False
        return self.losses_at(logits)

    def losses_at(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the training loss of each example at other logits (n, C), (n,), and its gradient there, (n, C)."""
        logits = logits.detach().requires_grad_()
        with torch.enable_grad():
            losses = self._surroundings.losses(self._batch, logits)
            (rows,) = torch.autograd.grad(losses.sum(), logits)
        return losses.detach(), rows

    @property
    def losses(self) -> Tensor:
        """Training loss of each example, (n,): the cross-entropy with its target unless ``--loss`` says otherwise."""
        return self._losses_and_rows[0]

    @once
    def D(self) -> Tensor:
        """Gradient of the batch's mean loss with respect to its logits, (n, C): (p - y)/n for cross-entropy."""
        return self._losses_and_rows[1] / self.n

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The network's trainable parameters by name, detached, to be read only."""
        return {name: p.detach() for name, p in self._passes.parameters.items()}

    def gradients_at(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the gradients of the step's loss at other parameters, by name; for `manipulate_update`.

        The example weights are those of this step, and whatever else the method changed of D is held fixed: D' there
        is ``weights * D(there) + (D' - weights * D)``. Dropout is replayed; running statistics stay as they are. One
        more pass forwards and backwards.

        Args:
            parameters: detached tensors by name; a parameter that is not among them keeps its value.
        """
        assert self.weights is not None and self.D_prime is not None, "called from manipulate_update"
        weights = self.weights if self.weights.dim() == 2 else self.weights[:, None]
        beyond = self.D_prime - weights * self.D

        def D_prime_at(logits: Tensor) -> Tensor:
            return weights * (self.losses_at(_at_least_single(logits))[1] / self.n) + beyond

        return self._surroundings.together.totals(self._passes.gradients_at(parameters, self.inputs, D_prime_at))

    @overload
    def look_ahead(
        self,
        D_prime: Tensor | Callable[[], Tensor],
        *,
        virtual_step: bool = True,
        unit_rate: bool = False,
        scope: Literal["all"] = "all",
        update: VirtualStep | None = None,
        also: Inputs = None,
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
        also: Inputs = None,
    ) -> HeadLookAhead: ...

    def look_ahead(
        self,
        D_prime: Tensor | Callable[[], Tensor],
        *,
        virtual_step: bool = True,
        unit_rate: bool = False,
        scope: Literal["all", "head"] = "all",
        update: VirtualStep | None = None,
        also: Inputs = None,
    ) -> LookAhead:
        """Take one virtual step with the logit gradient D' and evaluate the meta batch after it.

        The step is one of plain SGD at the current learning rate unless the method or the run asks for another. Trusted
        examples of the training set have D in it, as in the real one.

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
            also: further inputs, of the step's own examples, that share the meta batch's forward pass (BatchNorm's
                statistics are those of all); their logits follow the meta batch's in the look-ahead's.

        Raises:
            UserError: if the method's record says that it does not look ahead.
        """
        strategy = STRATEGIES["head"] if scope == "head" else self._strategy
        if strategy is None:
            raise UserError(
                "the method looks ahead, but its record says that it does not: report it to the plugin's author "
                '(looks_ahead="network" is missing)'
            )
        inputs = self.meta.inputs if also is None else joined(self.meta.inputs, also)
        shares = [*_shares_of(self.meta), *(self.shares if also is not None else ())]
        update = update or self._update

        def virtual() -> Tensor:
            given = D_prime() if callable(D_prime) else D_prime
            if self.kept_plain is not None:
                # in follow_forward D is not known yet, because what the losses of the others depend on is being learned
                plain = self.losses_at(self.logits)[1] / self.n if self._is_followed else self.D
                given = unless_kept_plain(self, given, plain)
            return times_factors(self, given)

        request = LookAheadRequest(
            passes=self._passes,
            inputs=inputs,
            D_prime=virtual,
            update=update if virtual_step else None,
            rate=torch.ones_like(self.lr) if unit_rate else update.rate if update else self.lr,
            together=self._surroundings.together,
            shares=shares,
        )
        if scope == "head":
            # without a graph of its own, this pass takes least memory while there is no other
            self._passes.features_at(inputs, shares)
        self.look = strategy.start(request)
        return self.look

    def meta_loss(self, D_prime: Tensor, *, virtual_step: bool = True, unit_rate: bool = False) -> Tensor:
        """Return the objective of the meta batch after a virtual step (arguments as `look_ahead`).

        The scalar is differentiable, once, in whatever D' was built from.
        """
        look = self.look_ahead(D_prime, virtual_step=virtual_step, unit_rate=unit_rate)
        return look.close(self.meta_objective(look.logits))

    def meta_objective(self, logits: Tensor) -> Tensor:
        """Return the mean loss of the meta batch at these logits (m, C): cross-entropy, or as ``--meta-loss`` says."""
        return self._surroundings.meta_losses(self.meta, _at_least_single(logits)).mean()


def unless_kept_plain(step: Step, given: Tensor, plain: Tensor | float = 1.0) -> Tensor:
    """Return what plugins give of a batch, (n, ...), but what is plain of examples that plugins have no say in."""
    if step.kept_plain is None:
        return given
    return torch.where(step.kept_plain if given.dim() == 1 else step.kept_plain[:, None], plain, given)


def times_factors(step: Step, given: Tensor) -> Tensor:
    """Return what is given of a batch, (n, ...), times the weights that the user gave the examples."""
    if step.factors is None:
        return given
    return given * (step.factors if given.dim() == 1 else step.factors[:, None]).to(given.dtype)


def _shares_of(batch: Batch) -> list[Share]:
    return [Share(batch.n) if batch.share is None else batch.share]


def _at_least_single(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
