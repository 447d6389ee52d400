"""What every step does up to its update: from a batch to its weights and D', and what is noted of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn

from reweight_core.data.batch import Batch
from reweight_core.engine.epoch_sums import EpochSums
from reweight_core.engine.finite import Health
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.passes import Passes
from reweight_core.engine.sample_table import SampleTable
from reweight_core.engine.stage import TRAINING, Stage
from reweight_core.engine.step import Losses, Step, Surroundings, times_factors, unless_kept_plain
from reweight_core.engine.virtual_step import VirtualStep
from reweight_core.machine.together import ALONE, Together


class StepHooks(Protocol):
    """What a step calls; see `reweight_core.plugins.hookspecs.Hooks`."""

    def transform_batch(self, batch: Batch) -> Batch:
        """Change a batch before its forward pass."""

    def follow_forward(self, step: Step) -> None:
        """Hear of the logits."""

    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """Give the loss of each example, (n,)."""

    def generate_weights(self, step: Step) -> Tensor:
        """Give the weights, (n,) or (n, C)."""

    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """Give D', (n, C)."""

    def manipulate_update(self, step: Step, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Give the gradients that the optimizer takes."""

    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """Give what is recorded as each example's weight, (n,)."""

    def follow_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Hear of the new parameters."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the plugins carry from one step to the next."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""


class Weighing(ABC):
    """Finds the weights and D' of the batch that it was fed last.

    Args:
        model: the network, on its device, in train mode.
        hooks: the method.
        lookahead: how the look-ahead is differentiated.
        passes: the passes of the network.
        generators: the generators of the draws inside the step, by name.
        lr: learning rate, a tensor without dimensions.
        samples: per-example records of the training set.
        num_classes: number of classes C.
        meta_losses: the loss of a meta batch.
        together: the processes of the run.

    Attributes:
        lookahead: as given; may be replaced between steps.
        sums: sums for the epoch's metrics.
        health: whether everything was finite so far.
        together: as given.
    """

    def __init__(
        self,
        model: nn.Module,
        hooks: StepHooks,
        lookahead: Choice,
        passes: Passes,
        generators: Mapping[str, torch.Generator],
        lr: Tensor,
        samples: SampleTable,
        num_classes: int,
        meta_losses: Losses = cross_entropy,
        together: Together = ALONE,
    ):
        self.together = together
        self.model, self.hooks, self.lookahead, self.passes = model, hooks, lookahead, passes
        self.generators, self.lr, self.samples = generators, lr, samples
        self.sums, self.health = EpochSums.zeros(lr.device, num_classes), Health(lr.device)
        self._meta_losses = meta_losses

    @abstractmethod
    def _given(self, size: int, stage: Stage) -> tuple[Batch, Callable[[], Batch]]:
        """Return the batch of this size that was fed last, and what gives its meta batch."""

    @abstractmethod
    def _virtual_step(self) -> VirtualStep | None:
        """Return the rule of the look-ahead's step, None for no step."""

    @property
    @abstractmethod
    def _optimizer_state(self) -> Mapping[Tensor, Mapping[str, Any]]:
        """The optimizer's state by parameter."""

    def open(self, size: int, stage: Stage = TRAINING, looks_ahead: bool = True, epoch: int = 0) -> Step:
        """Return the step as a method sees it.

        Args:
            size: number of examples n, all processes together.
            stage: the stage of the run; its source is what the batch is taken from.
            looks_ahead: whether the method may look ahead in this step.
            epoch: number of epochs finished.
        """
        original, draw_meta_batch = self._given(size, stage)
        surroundings = Surroundings(
            stage=stage, epoch=epoch, optimizer_state=self._optimizer_state, together=self.together
        )
        if not stage.plain:
            surroundings = attrs.evolve(
                surroundings,
                losses=self.hooks.losses,
                meta_losses=self._meta_losses,
                follow_forward=self.hooks.follow_forward,
            )
        return Step(
            original if stage.plain else self.hooks.transform_batch(original),
            self.passes,
            self.lr,
            self.lookahead.strategy,
            self._virtual_step(),
            draw_meta_batch,
            looks_ahead,
            original,
            surroundings,
        )

    def weigh(self, step: Step) -> Tensor:
        """Find the step's weights and D'; return the weights without those of the user, which are not the method's."""
        if step.stage.plain:
            weights, D_prime = torch.ones_like(step.losses), step.D
        else:
            step.weights = weights = unless_kept_plain(step, self.hooks.generate_weights(step))
            D_prime = unless_kept_plain(step, self.hooks.manipulate_gradient(step, weights), step.D)
        step.weights, step.D_prime = times_factors(step, weights), times_factors(step, D_prime)
        return weights

    def manipulate(self, step: Step) -> None:
        """Give the optimizer what the plugins make of the gradients."""
        gradients = {name: p.grad for name, p in self.passes.parameters.items() if p.grad is not None}
        manipulated = self.hooks.manipulate_update(step, gradients)
        for name, gradient in gradients.items():
            if manipulated[name] is not gradient:
                gradient.copy_(manipulated[name])

    def note(self, step: Step, own: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Add a weighed step to what is known of the epoch and of its examples; return what of it is finite.

        Args:
            step: the step.
            own: what `weigh` returned.
            parameters: what is not finite where a parameter is not, after the update; None not to look at them.
        """
        assert step.weights is not None and step.D_prime is not None, "the step was weighed"
        finite = self.health.note(
            losses=step.losses,
            weights=step.weights,
            gradient=step.D_prime,
            meta_loss=step.meta_value,
            parameters=parameters,
        )
        recorded = own if step.stage.plain else unless_kept_plain(step, self.hooks.example_weights(step, own))
        self.sums.add(step, step.weights)
        if step.source != "meta":
            self.samples.record(step, recorded)
        return finite
