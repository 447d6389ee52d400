"""What a plugin makes for itself while it is built, which core saves, restores and evaluates for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from reweight_core.data.seeds import derived_seed
from reweight_core.engine.network import Network, ParameterOptimizer
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.passes import Passes
from reweight_core.engine.state import part_of, prefixed
from reweight_core.errors import PluginError
from reweight_core.machine.together import ALONE, Together

RESERVED = ("val", "test", "best", "final")
"""Names that no further network may have, because its figures would be called like core's."""


class Made:
    """Makes further networks and optimizers for one plugin, and keeps them by name.

    Args:
        plugin: what the plugin is called in messages: its kind and its name.
        seed: the plugin's seed; what a network draws follows from it and the network's name.
        build: returns an initial network that follows from a seed.
        settings: how networks are optimized.
        lr: learning rate of the run, a tensor without dimensions.
        autocast: number type that networks compute in, or None for their parameters' own.
        together: the processes of the run.

    Attributes:
        plugin: as given.
        networks: the networks by name.
        optimizers: the optimizers by name.
        examples: what `by_example` was given.
    """

    def __init__(
        self,
        plugin: str,
        seed: int,
        build: Callable[[int], nn.Module],
        settings: OptimizerSettings,
        lr: Tensor,
        autocast: torch.dtype | None = None,
        together: Together = ALONE,
    ):
        self._together = together
        self.plugin, self._seed, self._build = plugin, seed, build
        self._settings, self._lr, self._autocast = settings, lr, autocast
        self._open = True
        self.networks: dict[str, Network] = {}
        self.optimizers: dict[str, ParameterOptimizer] = {}
        self.examples: list[Tensor] = []

    def new_network(self, name: str) -> Network:
        """See `Context.new_network`."""
        label = self._label("new_network", name)
        if name in RESERVED:
            raise PluginError(f"{label}: figures of core's begin with this name; choose another")
        seed = derived_seed(self._seed, name)
        generator = torch.Generator(self._lr.device).manual_seed(derived_seed(seed, "network"))
        model = self._build(seed)
        passes = Passes(model, generator, self._autocast, together=self._together)
        self.networks[name] = Network(model, passes, generator, self._settings, self._lr, label, self._together)
        return self.networks[name]

    def new_optimizer(
        self,
        name: str,
        parameters: Mapping[str, Tensor],
        *,
        optimizer: str | None = None,
        lr: float | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
    ) -> ParameterOptimizer:
        """See `Context.new_optimizer`; the gradients are not clipped.

        Args:
            name: what it is called in the state.
            parameters: initial values by name; they are copied.
            optimizer: ``sgd``, ``adam`` or ``adamw``; the run's unless it is given.
            lr: learning rate, constant; the run's, as it changes, unless it is given.
            momentum: momentum of SGD; the run's unless it is given.
            weight_decay: weight decay; the run's unless it is given.
        """
        label = self._label("new_optimizer", name)
        runs = self._settings
        settings = OptimizerSettings(
            name=runs.name if optimizer is None else optimizer,
            momentum=runs.momentum if momentum is None else momentum,
            weight_decay=runs.weight_decay if weight_decay is None else weight_decay,
        )
        rate = self._lr if lr is None else torch.full_like(self._lr, lr)
        self.optimizers[name] = ParameterOptimizer(parameters, settings, rate, label, self._together)
        return self.optimizers[name]

    def by_example(self, tensor: Tensor) -> Tensor:
        """See `Context.by_example`."""
        self.examples.append(tensor)
        return tensor

    def close(self) -> None:
        """Make nothing from now on: the plugin is built."""
        self._open = False

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of everything, each tensor's name after that of what it belongs to."""
        state: dict[str, Tensor] = {}
        for name, made in self._all().items():
            state |= prefixed(name, made.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        for name, made in self._all().items():
            made.load_state_dict(part_of(state, name))

    def _all(self) -> dict[str, Network | ParameterOptimizer]:
        return {**self.networks, **self.optimizers}

    def _label(self, function: str, name: str) -> str:
        """Return what something new is called in messages, if it may be made."""
        call = f"{self.plugin}: {function}('{name}')"
        if not self._open:
            raise PluginError(f"{call}: networks and optimizers can be made only while the plugin is built (__init__)")
        if not name.isidentifier():
            raise PluginError(f"{call}: the name must be letters, digits and underscores, with no digit at the start")
        if name in self._all():
            raise PluginError(f"{call}: there is something of this name already; choose another")
        return call
