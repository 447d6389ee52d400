"""Weight averaging: the network that is evaluated and kept has an exponential moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reweight_core import Context, Stage, hookimpl, part_of, prefixed
from reweight_method_fsr.options import EMAConfig


class EMA:
    """Averages the trained parameters after every step; running BatchNorm statistics are those of training."""

    def __init__(self, config: EMAConfig, context: Context):
        self._decay = torch.tensor(config.decay, device=context.device)
        self._steps = torch.zeros((), device=context.device)
        self._trained = {name: p for name, p in context.model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._trained.items()}

    @hookimpl
    def begin_stage(self, stage: Stage) -> None:
        """Average anew where a stage begins with another network."""
        if stage.start != "continue":
            self._steps.zero_()
            for name, average in self._average.items():
                average.copy_(self._trained[name].detach())

    @hookimpl
    def follow_update(self, parameters: Mapping[str, Tensor]) -> None:
        """average <- d average + (1 - d) theta with d = min(decay, (1 + t)/(10 + t))."""
        decay = torch.minimum(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps.add_(1)
        for name, average in self._average.items():
            average.lerp_(parameters[name].detach(), (1 - decay).to(average.dtype))

    @hookimpl
    def evaluation_model(self, model: nn.Module) -> nn.Module:
        """A copy of the network with the averaged weights."""
        averaged = copy.deepcopy(model)
        averaged.load_state_dict(self._average, strict=False)
        return averaged

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, and how many steps they saw."""
        return {"steps": self._steps} | prefixed("average", self._average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self._steps.copy_(state["steps"])
        for name, average in part_of(state, "average").items():
            self._average[name].copy_(average)
