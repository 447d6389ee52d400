"""Core's own implementations of the hooks of which one result is used: plain training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reweight_core.data.batch import Batch
from reweight_core.data.examples import Examples
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.stage import Stage
from reweight_core.engine.step import Step
from reweight_core.plugins.hookspecs import hookimpl


class Defaults:
    """Registered last, so that a method's implementation of the same hook is used instead."""

    @hookimpl(trylast=True)
    def plan_stages(self, stage: Stage) -> list[Stage]:
        """One stage."""
        return [stage]

    @hookimpl(trylast=True)
    def provide_meta_set(self, held_out: Examples | None) -> Examples | None:
        """The clean examples that the data hold out."""
        return held_out

    @hookimpl(trylast=True)
    def transform_batch(self, batch: Batch) -> Batch:
        """The batch as it is."""
        return batch

    @hookimpl(trylast=True)
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The cross-entropy of each example with its target, (n,)."""
        return cross_entropy(batch, logits)

    @hookimpl(trylast=True)
    def generate_weights(self, step: Step) -> Tensor:
        """A weight of 1 for every example, (n,)."""
        return torch.ones_like(step.losses)

    @hookimpl(trylast=True)
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """The logit gradient times its weights, (n, C)."""
        return (weights if weights.dim() == 2 else weights[:, None]) * step.D

    @hookimpl(trylast=True)
    def manipulate_update(self, step: Step, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The gradients as they are."""
        return gradients

    @hookimpl(trylast=True)
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """The weights, class-level ones as their mean over the classes, (n,)."""
        return weights if weights.dim() == 1 else weights.mean(1)

    @hookimpl(trylast=True)
    def evaluation_model(self, model: nn.Module) -> nn.Module:
        """The network in training."""
        return model

    @hookimpl(trylast=True)
    def final_model(self, model: nn.Module) -> nn.Module:
        """The network that is kept."""
        return model
