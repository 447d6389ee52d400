"""What every plugin of a run is told when it is built, and what it makes with that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from reweight_core.config.run_config import RunConfig
from reweight_core.data.examples import Examples
from reweight_core.data.prepare import PreparedData
from reweight_core.data.seeds import derived_seed
from reweight_core.engine.made import Made
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.outputs import Outputs, outputs_of
from reweight_core.errors import PluginError
from reweight_core.machine.device import cpus_of_this_process
from reweight_core.machine.together import ALONE, Together
from reweight_core.models.build import HEADS
from reweight_core.plugins import registry
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.records import Context
from reweight_core.runs.evaluate import BATCH_SIZE, FROM_FILES
from reweight_core.training.networks import build_network, seeded


class GivesContexts(Protocol):
    """What plugins are built with.

    Attributes:
        made: what each plugin made, by the plugin's name.
    """

    made: dict[str, Made]

    def of(self, kind: str, name: str) -> Context:
        """Return the context of one plugin."""


def build_hooks(
    config: RunConfig,
    contexts: GivesContexts,
    observers: Sequence[object] = (),
    listeners: Mapping[str, object] | None = None,
) -> MethodHooks:
    """Build the components, the loss and the method that the options name, and their hooks.

    Args:
        config: the options.
        contexts: what they are told.
        observers: further objects with hooks of an observer.
        listeners: observers by name.
    """
    built: dict[str, Any] = {
        name: registry.build("component", name, options, contexts.of("component", name))
        for name, options in zip(config.with_, config.component_options, strict=True)
    }
    loss = registry.build("loss", config.loss, config.loss_options, contexts.of("loss", config.loss))
    method = registry.build("method", config.method, config.method_options, contexts.of("method", config.method))
    return MethodHooks(method, config.method, observers, built, (config.loss, loss), contexts.made, listeners)


class Contexts:
    """Makes the `Context` of each plugin of a run.

    Args:
        config: the options.
        data: the prepared data.
        model: the run's network, on its device.
        train: training examples.
        meta: the clean examples that the data hold out, or None.
        epochs: number of epochs that the options ask for.
        steps: number of steps in them.
        best_network: what `Context.best_network` calls.
        together: the processes of the run.

    Attributes:
        lr: learning rate of the run, a tensor without dimensions.
        made: what each plugin made, by the plugin's name.
    """

    def __init__(
        self,
        config: RunConfig,
        data: PreparedData,
        model: nn.Module,
        train: Examples,
        meta: Examples | None,
        epochs: int,
        steps: int,
        best_network: Callable[[], nn.Module | None],
        together: Together = ALONE,
    ):
        self._together = together
        self._config, self._data, self._model, self._train, self._meta = config, data, model, train, meta
        self._epochs, self._steps = epochs, steps
        self._device = train.labels.device
        self.lr = torch.zeros((), device=self._device)
        self.made: dict[str, Made] = {}
        self._best_network = best_network

    def of(self, kind: str, name: str) -> Context:
        """Return the context of one plugin.

        Args:
            kind: what it is: ``method``, ``component``, ...
            name: its name.
        """
        seed = derived_seed(self._config.seed, name)
        made = self.made[name] = Made(
            f"{kind} '{name}'",
            seed,
            self._initial_network,
            settings_of(self._config),
            self.lr,
            autocast_of(self._config),
            self._together,
        )
        return Context(
            num_classes=len(self._data.dataset.classes),
            train_size=len(self._train),
            seed=seed,
            weight_decay=self._config.weight_decay,
            device=self._device,
            dtype=next(self._model.parameters()).dtype,
            model=self._model,
            train=self._train,
            meta=self._meta,
            batch_size=self._config.batch_size,
            epochs=self._epochs,
            steps=self._steps,
            lr=self.lr,
            new_network=made.new_network,
            new_optimizer=made.new_optimizer,
            predict=self._predict,
            best_network=self._best_network,
            together=self._together,
            by_example=made.by_example,
        )

    def close(self) -> None:
        """Let plugins make nothing more: they are built.

        Raises:
            PluginError: if two of them made networks of one name, whose figures could not be told apart.
        """
        owners: dict[str, str] = {}
        for made in self.made.values():
            made.close()
            for name in made.networks:
                if name in owners:
                    raise PluginError(
                        f"{owners[name]} and {made.plugin} both make a network '{name}': they cannot be used together"
                    )
                owners[name] = made.plugin

    def _initial_network(self, seed: int) -> nn.Module:
        with seeded(seed, self._device):
            return build_network(self._config, self._data, self._device)

    def _predict(self, examples: Examples, model: nn.Module | None = None) -> Outputs:
        """See `Context.predict`."""
        workers = cpus_of_this_process() if self._config.workers is None else self._config.workers
        size = FROM_FILES if examples.is_read_ahead else BATCH_SIZE
        chosen = self._model if model is None else model
        found = outputs_of(chosen, examples, size, workers, autocast_of(self._config), HEADS)
        # what follows from them must be the same in every process
        features = None if found.features is None else self._together.first(found.features)
        return Outputs(self._together.first(found.logits), features)


def settings_of(config: RunConfig) -> OptimizerSettings:
    """Return how the networks of a run are optimized."""
    return OptimizerSettings(
        name=config.optimizer,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        virtual_step=config.virtual_step,
        max_grad_norm=config.max_grad_norm,
    )


def autocast_of(config: RunConfig) -> torch.dtype | None:
    """Return the number type that the networks of a run compute in, None for their parameters' own."""
    return torch.bfloat16 if config.precision == "bf16" else None
