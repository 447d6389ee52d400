"""Telling all that listen of a run: what they get cannot be changed, and each may close what it opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pluggy

from reweight_core.errors import UserError, reason
from reweight_core.plugins.hookspecs import PROJECT, Hooks


class Listeners:
    """Calls the hooks that hear of a run.

    Args:
        manager: where all plugins and observers are registered.

    Attributes:
        observe_step: see `Hooks.observe_step`.
    """

    def __init__(self, manager: pluggy.PluginManager):
        self._manager = manager
        self.observe_step: pluggy.HookCaller = manager.hook.observe_step
        self._samples_are_taken = any("samples" in i.argnames for i in manager.hook.observe_epoch.get_hookimpls())

    def begin_run(self, folder: Path, config: Mapping[str, Any], epochs_done: int) -> None:
        """See `Hooks.begin_run`."""
        self._manager.hook.begin_run(folder=folder, config=MappingProxyType(dict(config)), epochs_done=epochs_done)

    def observe_epoch(self, metrics: Mapping[str, Any], samples: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """See `Hooks.observe_epoch`; the samples are made only if somebody takes them."""
        columns = samples() if self._samples_are_taken else {}
        for column in columns.values():
            column.flags.writeable = False
        self._manager.hook.observe_epoch(metrics=MappingProxyType(dict(metrics)), samples=MappingProxyType(columns))

    def finish_run(self, summary: Mapping[str, Any]) -> None:
        """See `Hooks.finish_run`."""
        self._manager.hook.finish_run(summary=MappingProxyType(dict(summary)))

    def end_run(self, error: BaseException | None) -> list[str]:
        """See `Hooks.end_run`: each is called, though another fails; return what went wrong."""
        problems = []
        for name, plugin in reversed(self._manager.list_name_plugin()):
            alone = pluggy.PluginManager(PROJECT)
            alone.add_hookspecs(Hooks)
            alone.register(plugin, name)
            try:
                alone.hook.end_run(error=error)
            except Exception as problem:
                told = str(problem) if isinstance(problem, UserError) else f"{name}: end_run: {reason(problem)}"
                problems.append(told)
        return problems
