"""The hooks of one run: the method beside core's defaults, with its mistakes found before they cost anything."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, get_args

import attrs
import numpy as np
import pluggy
import torch
from torch import Tensor, nn

from reweight_core.data.batch import Batch, BatchSource, Source
from reweight_core.data.examples import Examples
from reweight_core.engine.made import Made
from reweight_core.engine.network import Network
from reweight_core.engine.stage import Stage
from reweight_core.engine.state import part_of, prefixed
from reweight_core.engine.step import Step
from reweight_core.errors import PluginError
from reweight_core.plugins.blame import blamed
from reweight_core.plugins.defaults import Defaults
from reweight_core.plugins.guard import (
    ONE_RESULT,
    GuardedSource,
    checked_state,
    guarded,
    guarded_observer,
    misshapen,
)
from reweight_core.plugins.hookspecs import PROJECT, Hooks, hookimpl
from reweight_core.plugins.listeners import Listeners

_DEFAULTS, _CORE = "core's defaults", "core"


class _Noting:
    """Notes what the method itself makes of D; registered between it and the components."""

    @hookimpl(wrapper=True)
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Generator[None, Tensor, Tensor]:
        step.method_gradient = yield
        return step.method_gradient


class MethodHooks:
    """Calls a method's hooks and checks what they return.

    Args:
        method: the object that a method plugin built.
        name: its name, for messages.
        observers: further objects with hooks (progress display).
        components: objects of component plugins by name, in the order in which they act.
        loss: the object of the loss plugin and its name.
        made: what plugins made while they were built, by the plugin's name.
        listeners: objects of observer plugins by name.

    Attributes:
        plugins: the method, the loss and the components by name.
        listeners: tells the observers, and plugins that listen, of the run.

    Raises:
        PluginError: if a hook is misspelled, not marked or has wrong arguments, or if one that only one may implement
            has two implementations.
    """

    def __init__(
        self,
        method: object,
        name: str,
        observers: Sequence[object] = (),
        components: Mapping[str, object] | None = None,
        loss: tuple[str, object] | None = None,
        made: Mapping[str, Made] | None = None,
        listeners: Mapping[str, object] | None = None,
    ):
        components, self._made = components or {}, made or {}
        losses = dict([loss] if loss else [])
        self.plugins: dict[str, Any] = {name: method, **losses, **components}
        self._deciding = {
            f"{kind} '{part}'": plugin
            for kind, parts in (("method", {name: method}), ("loss", losses), ("component", components))
            for part, plugin in parts.items()
        }
        defaults = Defaults()
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)
        hooks = {label: guarded(plugin, label) for label, plugin in self._deciding.items()}
        of_components = {label: hooks.pop(label) for label in [f"component '{part}'" for part in components]}
        registered: dict[str, object] = {_DEFAULTS: defaults, **hooks, _CORE: _Noting(), **of_components}
        for part, plugin in (listeners or {}).items():
            registered[f"observer '{part}'"] = guarded_observer(plugin, f"observer '{part}'")
        for i, observer in enumerate(observers):
            registered[f"{type(observer).__name__} (observer {i})"] = observer
        for label, plugin in registered.items():
            try:
                self._manager.register(plugin, label)
                self._manager.check_pending()
            except pluggy.PluginValidationError as error:
                raise PluginError(f"{label}: {' '.join(str(error).split())}") from error
            for caller in self._manager.get_hookcallers(plugin) or []:
                for implementation in caller.get_hookimpls():
                    if implementation.kwargnames:
                        # pluggy 1.6 never passes an argument that has a default, 1.7 does
                        raise PluginError(f"{label}: the arguments of {caller.name} must not have defaults")
        self._called = {}
        for name in ONE_RESULT:
            hook = getattr(self._manager.hook, name)
            chosen = [i.plugin_name for i in hook.get_hookimpls() if not i.wrapper and i.plugin is not defaults]
            if len(chosen) > 1:
                raise PluginError(f"{hook.name} is implemented by {' and by '.join(chosen)}: only one can be used")
            # without the defaults behind it, a hook that forgets to return is found out
            self._called[hook.name] = self._manager.subset_hook_caller(hook.name, [defaults] if chosen else [])
        self.listeners = Listeners(self._manager)

    def implementers(self, hook: str) -> str:
        """Say which plugins implement a hook, by kind and name; nothing if core alone does."""
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return " with ".join(i.plugin_name for i in found if i.plugin_name not in (_DEFAULTS, _CORE))

    def _wrong(self, hook: str, problem: str) -> PluginError:
        """Return the error for what a hook did."""
        return PluginError(f"{self.implementers(hook) or _CORE}: {hook} {problem}")

    @property
    def networks(self) -> dict[str, Network]:
        """The further networks of all plugins, by name."""
        return {name: network for made in self._made.values() for name, network in made.networks.items()}

    @property
    def by_example(self) -> list[Tensor]:
        """The state of all plugins by training example (`Context.by_example`)."""
        return [tensor for made in self._made.values() for tensor in made.examples]

    @torch.no_grad()
    def initialise_networks(self, model: nn.Module) -> None:
        """See `Hooks.initialise_network`: of the run's network, then of the further ones."""
        for network in [model, *(further.model for further in self.networks.values())]:
            self._manager.hook.initialise_network(model=network)

    def plan_stages(self, stage: Stage) -> list[Stage]:
        """See `Hooks.plan_stages`."""
        stages = self._called["plan_stages"](stage=stage)
        if not isinstance(stages, Sequence):
            raise self._wrong("plan_stages", f"returned {type(stages).__name__}, not a list of stages")
        if not stages:
            raise self._wrong("plan_stages", "returned no stage")
        for planned in stages:
            if not isinstance(planned, Stage):
                raise self._wrong("plan_stages", f"returned a {type(planned).__name__} among the stages")
            if planned.source not in get_args(Source):
                raise self._wrong(
                    "plan_stages",
                    f"returned stage '{planned.name}' with the source '{planned.source}'; it must be "
                    f"{' or '.join(get_args(Source))}",
                )
        return list(stages)

    def begin_stage(self, stage: Stage) -> None:
        """See `Hooks.begin_stage`."""
        self._manager.hook.begin_stage(stage=stage)

    def order_epoch(self, stage: Stage, epoch: int, size: int, rng: np.random.RandomState) -> np.ndarray | None:
        """See `Hooks.order_epoch`; positions outside the stage's own (`Stage.ids`) are refused too."""
        order = self._called["order_epoch"](stage=stage, epoch=epoch, size=size, rng=rng)
        if order is None:
            return None
        problem = None
        if not isinstance(order, np.ndarray):
            problem = f"{type(order).__name__}, not a numpy array of positions"
        elif order.dtype != np.int64 or order.ndim != 1:
            problem = f"an array of {order.dtype}, shape {order.shape}; it must be int64 (k,)"
        elif len(order) < 2:
            problem = f"{len(order)} positions; a batch needs at least 2"
        elif ((order < 0) | (order >= size)).any():
            problem = f"positions from {order.min()} to {order.max()}; they must be in 0..{size - 1}"
        elif stage.ids is not None and not np.isin(order, stage.ids).all():
            problem = f"positions that stage '{stage.name}' does not go through (Stage.ids)"
        if problem is not None:
            raise self._wrong("order_epoch", f"returned {problem}")
        return order

    def provide_meta_set(self, held_out: Examples | None) -> Examples | BatchSource | None:
        """See `Hooks.provide_meta_set`."""
        meta = self._called["provide_meta_set"](held_out=held_out)
        if meta is held_out:
            return held_out
        if not isinstance(meta, Examples) and not callable(getattr(meta, "draw_batch", None)):
            raise self._wrong(
                "provide_meta_set",
                f"returned {type(meta).__name__}, neither examples nor an object with draw_batch() (a forgotten "
                "return?)",
            )
        return meta if isinstance(meta, Examples) else GuardedSource(meta, self.implementers("provide_meta_set"))

    def transform_batch(self, batch: Batch) -> Batch:
        """See `Hooks.transform_batch`."""
        transformed = self._called["transform_batch"](batch=batch)
        if not isinstance(transformed, Batch):
            problem = f"returned {type(transformed).__name__}, not a batch"
        elif transformed.ids is not batch.ids:
            # the same tensor and not an equal one: comparing would wait for the device
            problem = (
                "changed the ids of the batch, by which core finds what is known of an example; they must stay "
                "(order_epoch chooses the examples of an epoch)"
            )
        elif problem := misshapen(transformed):
            problem = f"returned {problem}"
        if problem:
            raise self._wrong("transform_batch", problem)
        kept = {name: getattr(batch, name) for name in ("source", "trusted", "factors", "share")}
        return attrs.evolve(transformed, **kept)

    def follow_update(self, parameters: Mapping[str, Tensor]) -> None:
        """See `Hooks.follow_update`."""
        self._manager.hook.follow_update(parameters=parameters)

    def finish_epoch(
        self, epoch: int, samples: Mapping[str, Tensor] | None = None, taken: Collection[str] = ()
    ) -> dict[str, float]:
        """See `Hooks.finish_epoch`; the figures of all implementations together, none of them called as in `taken`."""
        figures: dict[str, float] = {}
        for found in reversed(self._manager.hook.finish_epoch(epoch=epoch, samples=samples or {})):
            for name in found:
                if name in taken or name in figures:
                    raise self._wrong(
                        "finish_epoch", f"gives a figure '{name}', but there is one of this name: it must have another"
                    )
            figures |= found
        return figures

    def trusted_examples(self) -> dict[str, Tensor]:
        """See `Hooks.trusted_examples`; the sets of all implementations together."""
        # pluggy gives the last one registered first
        found = reversed(self._manager.hook.trusted_examples())
        return {name: ids for sets in found for name, ids in sets.items()}

    def evaluation_model(self, model: nn.Module) -> nn.Module:
        """See `Hooks.evaluation_model`."""
        chosen = self._called["evaluation_model"](model=model)
        if not isinstance(chosen, nn.Module):
            raise self._wrong("evaluation_model", f"returned {type(chosen).__name__}, not a network")
        return chosen

    def follow_forward(self, step: Step) -> None:
        """See `Hooks.follow_forward`."""
        self._manager.hook.follow_forward(step=step)

    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """See `Hooks.losses`."""
        losses = self._called["losses"](batch=batch, logits=logits)
        self._checked("losses", losses, logits, [(len(logits),)])
        if not losses.requires_grad and logits.requires_grad:
            raise self._wrong("losses", "returned losses that do not depend on the logits (detached?)")
        return losses

    def final_model(self, model: nn.Module) -> tuple[nn.Module, list[tuple[str, str]]]:
        """See `Hooks.final_model`; return the network, and kind and name of those that made it, the last first."""
        final = self._called["final_model"](model=model)
        if not isinstance(final, nn.Module):
            raise self._wrong("final_model", f"returned {type(final).__name__}, not a network")
        labels = [
            i.plugin_name for i in self._manager.hook.final_model.get_hookimpls() if i.plugin_name in self._deciding
        ]
        split = [label.partition(" ") for label in reversed(labels)]
        return final, [(kind, name.strip("'")) for kind, _, name in split]

    def generate_weights(self, step: Step) -> Tensor:
        """See `Hooks.generate_weights`."""
        weights = self._called["generate_weights"](step=step)
        return self._checked("generate_weights", weights, step.D, [tuple(step.D.shape[:1]), tuple(step.D.shape)])

    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """See `Hooks.manipulate_gradient`."""
        D_prime = self._called["manipulate_gradient"](step=step, weights=weights)
        return self._checked("manipulate_gradient", D_prime, step.D, [tuple(step.D.shape)])

    def manipulate_update(self, step: Step, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `Hooks.manipulate_update`."""
        manipulated = self._called["manipulate_update"](step=step, gradients=gradients)
        if not isinstance(manipulated, Mapping) or manipulated.keys() != gradients.keys():
            raise self._wrong("manipulate_update", "must return a gradient for each that it is given")
        return {
            name: gradient
            if gradient is gradients[name]
            else self._checked("manipulate_update", gradient, gradients[name], [tuple(gradients[name].shape)])
            for name, gradient in manipulated.items()
        }

    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """See `Hooks.example_weights`."""
        found = self._called["example_weights"](step=step, weights=weights)
        return self._checked("example_weights", found, step.D, [tuple(step.D.shape[:1])])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the plugins, each tensor's name after its plugin's; of what they made after ``made``."""
        state: dict[str, Tensor] = {}
        for whose, (name, part) in zip(self._deciding, self.plugins.items(), strict=True):
            if hasattr(part, "state_dict"):
                with blamed(whose, "state_dict", type(part).__module__):
                    state |= prefixed(name, part.state_dict())
            if name in self._made:
                state |= prefixed(f"{name}.made", self._made[name].state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for whose, (name, part) in zip(self._deciding, self.plugins.items(), strict=True):
            own = part_of(state, name)
            if name in self._made:
                self._made[name].load_state_dict(part_of(own, "made"))
            if hasattr(part, "state_dict"):
                with blamed(whose, "load_state_dict", type(part).__module__):
                    part.load_state_dict({key: value for key, value in own.items() if not key.startswith("made.")})

    def check_state(self) -> None:
        """Refuse state of a plugin that a checkpoint could not hold, before any training (`checked_state`)."""
        for whose, plugin in self._deciding.items():
            checked_state(plugin, whose)

    def _checked(self, hook: str, result: object, like: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
        """Compare a result with the contract; only descriptions of tensors are read, never values."""
        if not isinstance(result, torch.Tensor):
            raise self._wrong(hook, f"returned {type(result).__name__}, not a tensor")
        found = (tuple(result.shape), result.dtype, result.device)
        if found not in [(shape, like.dtype, like.device) for shape in shapes]:
            raise self._wrong(
                hook,
                f"returned shape {found[0]}, {found[1]} on {found[2]}; it must be {' or '.join(map(str, shapes))}, "
                f"{like.dtype} on {like.device}",
            )
        return result.detach()
