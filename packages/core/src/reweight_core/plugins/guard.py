"""A plugin's hooks as they are called: what fails or gives nothing usable is told with the plugin's kind and name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial, wraps
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from reweight_core.data.batch import Batch, BatchSource
from reweight_core.errors import PluginError
from reweight_core.plugins.blame import blamed
from reweight_core.plugins.hookspecs import PROJECT, Hooks

_SPECIFIED = {name: function for name, function in vars(Hooks).items() if hasattr(function, f"{PROJECT}_spec")}

ONE_RESULT = tuple(name for name, function in _SPECIFIED.items() if function.reweight_spec["firstresult"])
"""Hooks of which one result is used."""

_MAY_BE_NONE = ("provide_meta_set", "order_epoch")
"""Those of them that need not give one."""

OBSERVING = ("begin_run", "observe_step", "observe_epoch", "finish_run", "end_run")
"""Hooks that hear of a run and change nothing."""

_DETACHED = ("generate_weights", "manipulate_gradient", "example_weights")
"""Hooks whose result is a tensor that core detaches, before a component sees it."""


class GuardedHooks:
    """What is registered in a plugin's place: its hooks as attributes."""

    def __init__(self, hooks: Mapping[str, Callable[..., Any]]):
        vars(self).update(hooks)


def guarded(plugin: object, whose: str) -> GuardedHooks:
    """Return the hooks of a plugin, with its mistakes told.

    Args:
        plugin: what the plugin built.
        whose: kind and name of the plugin, ``method 'x'``.

    Raises:
        PluginError: if a function has the name of a hook, but is not marked with `hookimpl`; or if it would see true
            labels.
    """
    hooks = _guarded_hooks(plugin, whose)
    observe = vars(hooks).get("observe_epoch")
    if observe is not None and "samples" in inspect.signature(observe).parameters:
        raise PluginError(
            f"{whose}: observe_epoch takes the samples, whose true labels only an observer may see: take those of "
            "finish_epoch"
        )
    return hooks


def _guarded_hooks(plugin: object, whose: str) -> GuardedHooks:
    hooks = {}
    for name, function in _routines(plugin):
        if hasattr(function, f"{PROJECT}_impl"):
            hooks[name] = _guarded(function, whose)
        elif name in _SPECIFIED:
            raise PluginError(
                f"{whose}: {name} has the name of a hook, but is not marked with @hookimpl: mark it, or rename it"
            )
    return GuardedHooks(hooks)


def guarded_observer(plugin: object, whose: str) -> GuardedHooks:
    """Return the hooks of an observer (arguments as `guarded`).

    Raises:
        PluginError: if a function has the name of a hook, but is not marked with `hookimpl`; or if it is a hook by
            which the observer could change the run.
    """
    hooks = _guarded_hooks(plugin, whose)
    others = vars(hooks).keys() - set(OBSERVING)
    if others:
        raise PluginError(
            f"{whose}: implements {', '.join(sorted(others))}; an observer hears of a run by {', '.join(OBSERVING)} "
            "alone: make it a component"
        )
    return hooks


class GuardedSource:
    """A plugin's source of meta batches, with its mistakes told.

    Args:
        source: the object with ``draw_batch()``.
        whose: kind and name of the plugin.
    """

    def __init__(self, source: BatchSource, whose: str):
        self._source, self._whose = source, whose

    def draw_batch(self) -> Batch:
        """Return the source's next batch.

        Raises:
            PluginError: if it fails, or gives no batch.
        """
        with blamed(self._whose, "draw_batch", type(self._source).__module__):
            batch = self._source.draw_batch()
        problem = misshapen(batch) if isinstance(batch, Batch) else f"{type(batch).__name__}, not a batch"
        if problem:
            raise PluginError(f"{self._whose}: draw_batch returned {problem}")
        return batch


def guarded_schedule(schedule: Callable[[float], float], whose: str) -> Callable[[float], float]:
    """Return the schedule of a plugin's stage, with its mistakes told."""

    @wraps(schedule)
    def factor(epochs: float) -> float:
        with blamed(whose, "Stage.schedule", getattr(schedule, "__module__", "")):
            value = schedule(epochs)
        if not isinstance(value, Real) or not math.isfinite(value):
            raise PluginError(f"{whose}: Stage.schedule returned {value!r}; a factor is a finite number")
        return float(value)

    return factor


def checked_state(plugin: Any, whose: str) -> None:
    """Refuse state that no checkpoint can hold, or that would never be restored.

    Raises:
        PluginError: if `state_dict` gives something else than tensors by name, or one of it and `load_state_dict` is
            missing.
    """
    missing = [name for name in ("state_dict", "load_state_dict") if not hasattr(plugin, name)]
    if len(missing) == 2:
        return
    if missing:
        raise PluginError(f"{whose}: has no {missing[0]}(), so its state would be lost: write both or none")
    with blamed(whose, "state_dict", type(plugin).__module__):
        state = plugin.state_dict()
    if not isinstance(state, Mapping):
        raise PluginError(f"{whose}: state_dict returned {type(state).__name__}, not tensors by name")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise PluginError(
                f"{whose}: state_dict gave {name!r}, of type {type(value).__name__}: a checkpoint holds tensors only; "
                "keep numbers as tensors, changed in place"
            )


def misshapen(batch: Batch) -> str:
    """Say what of a batch does not fit its ids, or nothing."""
    n = len(batch.ids)
    if isinstance(batch.inputs, Tensor) and len(batch.inputs) != n:
        return f"{len(batch.inputs)} images for {n} ids"
    if batch.labels.shape != (n,) or batch.labels.dtype != torch.int64:
        return f"labels of {batch.labels.dtype}, shape {tuple(batch.labels.shape)}; they must be int64 ({n},)"
    if batch.targets is not None and (batch.targets.dim() != 2 or len(batch.targets) != n):
        return f"targets of shape {tuple(batch.targets.shape)}; they must be rows ({n}, C)"
    return ""


def _routines(plugin: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    """List the functions of an object; its properties are not run."""
    for name in dir(plugin):
        if not name.startswith("__") and not isinstance(inspect.getattr_static(plugin, name, None), property):
            function = getattr(plugin, name, None)
            if inspect.isroutine(function):
                yield name, function


def _guarded(function: Callable[..., Any], whose: str) -> Callable[..., Any]:
    hook, options = function.__name__, function.reweight_impl  # type: ignore[attr-defined]  # set by hookimpl
    blame = partial(blamed, whose, hook, function.__module__)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        with blame():
            return _checked(hook, function(*arguments), whose)

    @wraps(function)
    def wrap(*arguments: Any) -> Generator[Any, Any, Any]:
        with blame():
            return _checked(hook, (yield from function(*arguments)), whose)

    if options["hookwrapper"]:
        raise PluginError(f"{whose}: {hook} is a hookwrapper, pluggy's older kind: mark it with hookimpl(wrapper=True)")
    if not options["wrapper"]:
        return call
    # pluggy finds out itself, and says so, where a wrapper has no yield
    return wrap if inspect.isgeneratorfunction(function) else function


def _checked(hook: str, result: Any, whose: str) -> Any:
    if result is None and hook in ONE_RESULT and hook not in _MAY_BE_NONE:
        raise PluginError(f"{whose}: {hook} returned None (a forgotten return?)")
    if hook == "finish_epoch" and result is not None:
        return _figures(result, whose)
    if hook == "trusted_examples" and result is not None:
        _check_positions(result, whose)
    return result.detach() if hook in _DETACHED and isinstance(result, Tensor) else result


def _figures(figures: Any, whose: str) -> dict[str, float]:
    """Return the figures as Python's numbers, which JSON knows."""
    if not isinstance(figures, Mapping):
        raise PluginError(f"{whose}: finish_epoch returned {type(figures).__name__}, not figures by name")
    for name, value in figures.items():
        if not isinstance(value, Real):
            hint = ": read it with .item()" if isinstance(value, Tensor) else ""
            raise PluginError(
                f"{whose}: finish_epoch gave '{name}', a {type(value).__name__}, and figures are numbers{hint}"
            )
    return {name: value if isinstance(value, int) else float(value) for name, value in figures.items()}


def _check_positions(sets: Any, whose: str) -> None:
    if not isinstance(sets, Mapping):
        raise PluginError(f"{whose}: trusted_examples returned {type(sets).__name__}, not positions by name")
    for name, ids in sets.items():
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64 or ids.dim() != 1:
            raise PluginError(f"{whose}: trusted_examples gave '{name}', which is no tensor of int64 (k,)")
