"""Self-paced learning (Kumar et al., NeurIPS 2010) and MentorNet's predefined curriculum (Jiang et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reweight_core import Context, Step, hookimpl
from reweight_losses.options import MentorConfig, SelfPacedConfig

DECAY = 0.5
"""Decay of the moving percentile."""

EASING = 0.9
"""Share of the epochs after which MentorNet's weights fall linearly, not to 0 at once."""

EARLY = 0.17
"""Share of the epochs with MentorNet's larger example dropout."""


class MovingPercentile:
    """A moving average m of a percentile of each batch's losses; it begins with the first batch's own.

    The official code of MentorNet begins at 0, and its burn-in hides what follows.

    Args:
        percentile: 0 to 100.
        context: of the run.
    """

    def __init__(self, percentile: float, context: Context):
        self.share = percentile / 100
        self.m = torch.full(
            (), torch.nan, device=context.device, dtype=torch.promote_types(context.dtype, torch.float32)
        )

    def distance(self, step: Step) -> Tensor:
        """Return the step's losses less m, (n,), after m has moved."""
        self.move(step.whole(step.losses))
        return step.losses - self.m

    def move(self, losses: Tensor) -> None:
        """Bring m up to date with the losses of a whole batch, (n,)."""
        position = self.share * (len(losses) - 1)
        below = int(position)
        ascending = losses.sort().values
        # torch's quantile changes shapes in place, which a recorded step cannot repeat
        here = ascending[below].lerp(ascending[min(below + 1, len(losses) - 1)], position - below)
        self.m.copy_(torch.where(self.m.isnan(), here, DECAY * self.m + (1 - DECAY) * here))


class SelfPaced:
    """v = [loss <= m]: trains on the examples that are easy at present, m a moving percentile of the losses.

    The minimum over v in [0, 1]^n of sum_i v_i (loss_i - m) (Kumar et al.), with the percentile in place of a
    threshold that is to be chosen in the unit of the loss.
    """

    def __init__(self, config: SelfPacedConfig, context: Context):
        self.percentile = MovingPercentile(config.percentile, context)
        self.burn_in = config.burn_in * context.epochs

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """v of each example, (n,)."""
        d = self.percentile.distance(step)
        if step.epoch < self.burn_in:
            return torch.ones_like(d)
        return (d <= 0).to(d.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moving percentile."""
        return {"m": self.percentile.m}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.percentile.m.copy_(state["m"])


class Mentor:
    """MentorNet PD: weights 1 at first, then [d <= 0], at last clip(1 - d, 0, 1), d = loss - m, and example dropout.

    The curriculum of the official code, which its network is trained to imitate; the formula needs no network.
    Left out: the weight decay of a step does not follow its mean weight.
    """

    def __init__(self, config: MentorConfig, context: Context):
        self.config, self.epochs = config, context.epochs
        self.percentile = MovingPercentile(config.percentile, context)
        self.generator = torch.Generator(context.device).manual_seed(context.seed)

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """v of each example, (n,)."""
        d = self.percentile.distance(step)
        progress = step.epoch / self.epochs
        if progress < self.config.burn_in:
            v = torch.ones_like(d)
        elif progress < EASING:
            v = (d <= 0).to(d.dtype)
        else:
            v = (1 - d).clamp(0, 1)
        kept = self._kept(step.n, self.config.early_dropout if progress < EARLY else self.config.dropout)
        return v * step.part(kept).to(v.dtype)

    def _kept(self, n: int, rate: float) -> Tensor:
        """Say of a batch of n which examples are kept, bool (n,): all but a random share, exactly."""
        order = torch.rand(n, generator=self.generator, device=self.generator.device).argsort()
        return order < int(n * (1 - rate))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moving percentile and the generator's state."""
        return {"m": self.percentile.m, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.percentile.m.copy_(state["m"])
        self.generator.set_state(state["generator"])
