"""Core's own implementations of the hooks: plain training with the held-out meta set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reweight_core.examples import Examples
from reweight_core.hookspecs import hookimpl
from reweight_core.stages import Stage
from reweight_core.step import Batch, Step


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
    def generate_weights(self, step: Step) -> Tensor:
        """A weight of 1 for every example, (n,)."""
        return torch.ones_like(step.losses)

    @hookimpl(trylast=True)
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """The logit gradient times its weights, (n, C)."""
        return (weights if weights.dim() == 2 else weights[:, None]) * step.D

    @hookimpl(trylast=True)
    def evaluation_model(self, model: nn.Module) -> nn.Module:
        """The network in training."""
        return model
