"""The virtual step of a look-ahead: where a gradient would take the parameters, and how that follows the gradient.

    theta_hat = theta - rate * direction(gradient)

Every rule here acts on each parameter entry by itself, so its derivative with respect to the gradient is diagonal: the
slope. Rules that are not (clipping the gradient's norm) cannot be virtual steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor


class VirtualStep(Protocol):
    """A rule for the virtual step."""

    @property
    def rate(self) -> Tensor:
        """Learning rate, a tensor without dimensions."""

    def direction(self, parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the direction of one parameter, and its slope (None where it is 1 everywhere).

        Args:
            parameter: the parameter itself, whose optimizer state may be used.
            gradient: its gradient, of the same shape.
        """


@attrs.frozen(eq=False)
class VirtualSGD:
    """SGD: plain, as in the papers of L2RW, MW-Net and GDW, or with momentum and weight decay.

    Attributes:
        rate: learning rate, a tensor without dimensions.
        momentum: factor of the momentum buffer that the real optimizer has now.
        weight_decay: factor of the parameter that is added to the gradient.
        state: the real optimizer's state by parameter; needed for momentum only.
    """

    rate: Tensor
    momentum: float = 0.0
    weight_decay: float = 0.0
    state: Mapping[Tensor, Mapping[str, Any]] = attrs.field(factory=dict)

    def direction(self, parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `VirtualStep.direction`; the slope is 1."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter.detach()
        buffer = self.state.get(parameter, {}).get("momentum_buffer") if self.momentum else None
        return gradient if buffer is None else gradient + self.momentum * buffer, None


@attrs.frozen(eq=False)
class VirtualAdam:
    """Adam, or AdamW with decoupled weight decay (Kingma & Ba, 2015; Loshchilov & Hutter, 2019).

    While the second moment is still young the direction is nearly the gradient's sign: the slope is then nearly 0 and
    the look-ahead says little.

    Attributes:
        rate: learning rate, a tensor without dimensions.
        betas: decay of the first and the second moment.
        epsilon: added to the root of the second moment.
        weight_decay: factor of the parameter.
        decoupled: whether weight decay stays out of the moments (AdamW).
        state: the real optimizer's state by parameter.
    """

    rate: Tensor
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    decoupled: bool
    state: Mapping[Tensor, Mapping[str, Any]]

    def direction(self, parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `VirtualStep.direction`."""
        beta1, beta2 = self.betas
        decay = self.weight_decay * parameter.detach()
        if not self.decoupled:
            gradient = gradient + decay
        moments = self.state.get(parameter, {})
        zero = torch.zeros_like(parameter)
        # in double precision, as torch's own: 1 - beta^step loses most of its digits otherwise
        count = moments.get("step", torch.zeros((), device=parameter.device)).double() + 1
        mean = (beta1 * moments.get("exp_avg", zero) + (1 - beta1) * gradient) / (1 - beta1**count)
        square = (beta2 * moments.get("exp_avg_sq", zero) + (1 - beta2) * gradient.square()) / (1 - beta2**count)
        # where no gradient ever came the direction is 0, and so is every derivative of it
        seen = square > 0
        root = torch.where(seen, square, 1).sqrt()
        direction = torch.where(seen, mean / (root + self.epsilon), 0)
        slope_of_mean = (1 - beta1) / (1 - beta1**count) / (root + self.epsilon)
        slope_of_root = (1 - beta2) / (1 - beta2**count) * gradient / root
        slope = torch.where(seen, slope_of_mean - mean * slope_of_root / (root + self.epsilon).square(), 0)
        return direction + decay if self.decoupled else direction, slope.detach()


@attrs.frozen(eq=False)
class VirtualGroups:
    """A step in which groups of parameters have rules of their own, at rates of their own.

    Attributes:
        rate: learning rate of the step, a tensor without dimensions.
        of_parameter: the rule of each parameter, whose rate is its own as a share of `rate`.
    """

    rate: Tensor
    of_parameter: Mapping[Tensor, VirtualStep]

    def direction(self, parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `VirtualStep.direction`; the share is part of direction and slope."""
        rule = self.of_parameter[parameter]
        direction, slope = rule.direction(parameter, gradient)
        return rule.rate * direction, rule.rate if slope is None else rule.rate * slope
