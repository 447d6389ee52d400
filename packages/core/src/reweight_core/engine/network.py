"""What a plugin may train beside the run's network: further networks, and tensors of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reweight_core.data.inputs import Inputs
from reweight_core.engine.gradient_exchange import GradientExchange
from reweight_core.engine.optimizers import NamedOptimizer, OptimizerSettings
from reweight_core.engine.passes import Passes
from reweight_core.engine.state import part_of, prefixed
from reweight_core.errors import PluginError
from reweight_core.machine.together import ALONE, Share, Together


class Network:
    """A further network of a run's architecture, with passes, random draws and an optimizer of its own.

    In a step, `logits` runs it and `update` takes one step with a logit gradient. Its parameters, running statistics,
    optimizer and draws are saved and restored by core.

    Args:
        model: the network, on its device, in train mode.
        passes: its passes.
        generator: what `passes` draw from.
        settings: how it is optimized.
        lr: learning rate, a tensor without dimensions.
        label: what it is called in messages.
        together: the processes of the run.

    Attributes:
        model: as given.
        passes: as given.
    """

    def __init__(
        self,
        model: nn.Module,
        passes: Passes,
        generator: torch.Generator,
        settings: OptimizerSettings,
        lr: Tensor,
        label: str = "a further network",
        together: Together = ALONE,
    ):
        self.model, self.passes, self._label = model, passes, label
        self._generator = generator
        self._optimizer = NamedOptimizer(passes.parameters, settings, lr)
        self._exchange = GradientExchange(list(passes.parameters.values()), together)
        self._has_run = False

    def logits(self, inputs: Inputs, shares: Sequence[Share] = ()) -> Tensor:
        """Return the logits (n, C) of the inputs of n examples in train mode, detached, at least single precision.

        Every call is a forward pass that updates BatchNorm's running statistics: a step has one.

        Args:
            inputs: the inputs.
            shares: `Step.shares`, where they are the step's: in several processes dropout is that of the whole batch.
        """
        self.passes.begin(inputs, shares=shares)
        self._has_run = True
        logits = self.passes.forward().detach()
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def update(self, D: Tensor) -> None:
        """Take one step of the optimizer along J^T D, where J is that of the last `logits`.

        In several processes J^T D is the sum of theirs.

        Args:
            D: gradient of the network's loss with respect to these logits, (n, C): (p - y)/n for plain training.

        Raises:
            PluginError: if `logits` was not called since the last update.
        """
        if not self._has_run:
            raise PluginError(f"{self._label}: update() needs a call of logits() before it, in every step")
        self._optimizer.zero_grad()
        with self._exchange.during_backward():
            self.passes.backward(D)
        self._has_run = False
        self._optimizer.step()

    def forget_updates(self) -> None:
        """Make the optimizer one that remembers nothing, in place."""
        self._optimizer.load_state_dict({})

    def state_dict(self) -> dict[str, Tensor]:
        """Return the network, what its optimizer remembers, and the state of its draws."""
        return (
            prefixed("network", self.model.state_dict())
            | prefixed("optimizer", self._optimizer.state_dict())
            | {"generator": self._generator.get_state()}
        )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.model.load_state_dict(part_of(state, "network"))
        self._optimizer.load_state_dict(part_of(state, "optimizer"))
        self._generator.set_state(state["generator"])


class ParameterOptimizer:
    """Tensors of a plugin's own, such as a matrix between classes, and their optimizer.

    Args:
        parameters: initial values by name; they are copied.
        settings: how they are optimized.
        lr: learning rate, a tensor without dimensions.
        label: what it is called in messages.
        together: the processes of the run.

    Attributes:
        parameters: the tensors by name, leaves that require gradients; `step` changes them in place.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        settings: OptimizerSettings,
        lr: Tensor,
        label: str = "an optimizer",
        together: Together = ALONE,
    ):
        self._label, self._together = label, together
        self.parameters: dict[str, Tensor] = {
            name: parameter.detach().to(lr.device, copy=True).requires_grad_() for name, parameter in parameters.items()
        }
        self._optimizer = NamedOptimizer(self.parameters, settings, lr)

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Take one step along the gradients, one for each parameter by its name.

        Those of several processes are summed: each gives the gradient of what it adds to a sum over the batch.

        Raises:
            PluginError: if the names differ from the parameters'.
        """
        if gradients.keys() != self.parameters.keys():
            raise PluginError(
                f"{self._label}: step() needs a gradient for each of {', '.join(self.parameters)}, but was given "
                f"{', '.join(gradients) or 'none'}"
            )
        totals = self._together.totals(gradients)
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None
            parameter.grad.copy_(totals[name])
        self._optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parameters, detached, and what their optimizer remembers."""
        detached = {name: parameter.detach() for name, parameter in self.parameters.items()}
        return prefixed("parameters", detached) | prefixed("optimizer", self._optimizer.state_dict())

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        saved = part_of(state, "parameters")
        for name, parameter in self.parameters.items():
            parameter.copy_(saved[name])
        self._optimizer.load_state_dict(part_of(state, "optimizer"))
