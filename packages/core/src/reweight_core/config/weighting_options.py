"""Options of methods that weight examples by a function of their losses, learned on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from attrs.validators import and_, ge, gt, le

from reweight_core.config.options import option
from reweight_core.plugins.records import Context

if TYPE_CHECKING:
    from reweight_core.engine.weighting_network import WeightingNetwork


@attrs.frozen
class WeightingOptions:
    """Options of a weighting network V; a method's configuration class inherits them, or is this one."""

    weight_lr: float | None = option(
        None,
        "Learning rate of the weighting network (Adam). Default: 0.001, and up to 0.01 in runs of few steps.",
        check=gt(0),
    )
    weight_l2: float = option(1e-4, "Weight decay of the weighting network.", check=ge(0))
    weight_hidden: int = option(100, "Hidden units of the weighting network.", check=and_(gt(0), le(100_000)))

    def build(self, context: Context) -> WeightingNetwork:
        """Make the weighting network of a run."""
        from reweight_core.engine.weighting_network import WeightingNetwork

        lr = rate_for(context.steps) if self.weight_lr is None else self.weight_lr
        return WeightingNetwork(context.device, context.dtype, lr, self.weight_l2, self.weight_hidden, context.together)


def rate_for(steps: int | None) -> float:
    """Return the learning rate of a weighting network that learns for this many steps, 14/steps within [1e-3, 1e-2].

    Adam moves each parameter by about its rate in a step, so rate times steps bounds how far V goes from its initial
    weights. The official code of Meta-Weight-Net has 1e-3 for tens of thousands of steps; V would hardly move in a run
    of a thousand. Where the number is not known it is 1e-3.
    """
    return 1e-3 if steps is None else max(1e-3, min(1e-2, 14 / steps))
