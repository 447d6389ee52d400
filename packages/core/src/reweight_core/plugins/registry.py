"""Finding plugins: every entry point is loaded by itself, so that one broken plugin harms nobody else."""

from __future__ import annotations

import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module, metadata
from typing import Any

import attrs

from reweight_core.errors import PluginError, UserError, nearest, reason
from reweight_core.plugins.blame import blamed
from reweight_core.plugins.imported import Imported
from reweight_core.plugins.records import (
    CommandPlugin,
    ComponentPlugin,
    DataPlugin,
    LossPlugin,
    MethodPlugin,
    ModelPlugin,
    NoisePlugin,
    ObserverPlugin,
    TablePlugin,
)

GROUPS: dict[str, tuple[str, type]] = {
    "method": ("reweight.methods", MethodPlugin),
    "component": ("reweight.components", ComponentPlugin),
    "data": ("reweight.data", DataPlugin),
    "noise": ("reweight.noise", NoisePlugin),
    "loss": ("reweight.losses", LossPlugin),
    "observer": ("reweight.observers", ObserverPlugin),
    "model": ("reweight.models", ModelPlugin),
    "table": ("reweight.tables", TablePlugin),
    "command": ("reweight.commands", CommandPlugin),
}
"""Kind of plugin -> (entry-point group, class of its record)."""

ALLOW_LIST = "REWEIGHT_PLUGINS"
"""Environment variable: comma-separated names of plugins or distributions; when set, only these load.
Core's own plugins always do."""


@attrs.frozen
class PluginStatus:
    """One line of ``reweight plugins``.

    Attributes:
        kind: a key of `GROUPS`.
        name: the entry point's name.
        distribution: the package that provides it.
        version: that package's version.
        status: ``ok``, ``broken``, ``duplicate`` or ``off`` (not named in REWEIGHT_PLUGINS).
        error: why it is broken or a duplicate, else empty.
    """

    kind: str
    name: str
    distribution: str
    version: str
    status: str
    error: str


def find(kind: str, name: str) -> Any:
    """Load the plugin of this kind and name.

    Raises:
        UserError: if there is none, if two distributions claim the name, or if it cannot be loaded.
    """
    entry = find_entry(kind, name)
    try:
        return _load(kind, entry)
    except Exception as error:
        raise UserError(
            f"{kind} '{name}' of {_source(entry)} cannot be loaded: {reason(error)}; mend or uninstall that package"
        ) from error


def function_of(command: str) -> Any:
    """Import what does the same in Python as a command (errors as `find`); None if there is nothing."""
    function = find("command", command).function
    if function is None:
        return None
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


def build(kind: str, name: str, *arguments: Any) -> Any:
    """Let the plugin of this kind and name build what it is for.

    Raises:
        UserError: as `find`; or if it fails, or builds nothing.
    """
    record = find(kind, name)
    with blamed(f"{kind} '{name}'", "build", module_of(record.build)):
        built = record.build(*arguments)
    if built is None:
        raise PluginError(f"{kind} '{name}': build returned None (a forgotten return?)")
    if isinstance(built, type):
        raise PluginError(f"{kind} '{name}': build returned the class {built.__name__}, not an object of it")
    return built


def module_of(function: Callable[..., Any]) -> str:
    """Return the module of a function that a record names, ``module:name`` where it is imported when it is called."""
    return function.target if isinstance(function, Imported) else getattr(function, "__module__", "")


def find_entry(kind: str, name: str) -> metadata.EntryPoint:
    """Return the one entry point of this kind and name, without loading it (errors as `find`)."""
    entries = _entries(kind)
    if name not in entries:
        if name in _installed(kind):
            raise UserError(f"{kind} '{name}' is installed, but {ALLOW_LIST} does not name it")
        known = sorted(entries)
        if not known:
            raise UserError(f"no {kind} plugin is installed, so none is called '{name}': install one beside the core")
        others = [other for other in GROUPS if other != kind and name in _entries(other)]
        hint = f" (it is a {others[0]})" if others else nearest(name, known)
        raise UserError(f"no {kind} is called '{name}'{hint}; installed: {', '.join(known)}")
    if len(entries[name]) > 1:
        raise UserError(_clash(kind, name, entries[name]))
    return entries[name][0]


def names(kind: str) -> list[str]:
    """List the names of the installed plugins of a kind, from metadata alone."""
    return sorted(_entries(kind))


def load_all(kind: str) -> dict[str, Any]:
    """Load every plugin of a kind that can be loaded; the others give one warning each."""
    found = {}
    for name in names(kind):
        try:
            found[name] = find(kind, name)
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def version_of(kind: str, name: str) -> str:
    """Return ``distribution version`` of the plugin of this kind and name."""
    return _source(find_entry(kind, name))


def status() -> list[PluginStatus]:
    """Describe every installed plugin, the ones that do not load included."""
    rows = []
    for kind in GROUPS:
        for name, entries in sorted(_installed(kind).items()):
            allowed = [e for e in entries if _allowed(e)]
            for entry in entries:
                state, error = "ok", ""
                if not _allowed(entry):
                    state = "off"
                elif len(allowed) > 1:
                    state, error = "duplicate", _clash(kind, name, allowed)
                else:
                    try:
                        _load(kind, entry)
                    except Exception as problem:
                        state, error = "broken", reason(problem)
                dist = entry.dist
                rows.append(
                    PluginStatus(kind, name, dist.name if dist else "?", dist.version if dist else "?", state, error)
                )
    return rows


def _entries(kind: str) -> dict[str, list[metadata.EntryPoint]]:
    allowed = {name: [e for e in entries if _allowed(e)] for name, entries in _installed(kind).items()}
    return {name: entries for name, entries in allowed.items() if entries}


def _installed(kind: str) -> dict[str, list[metadata.EntryPoint]]:
    group, _ = GROUPS[kind]
    by_name: dict[str, list[metadata.EntryPoint]] = defaultdict(list)
    for entry in _entry_points(group, tuple(map(_state, sys.path))):
        by_name[entry.name].append(entry)
    return dict(by_name)


@lru_cache(maxsize=len(GROUPS))
def _entry_points(group: str, path: tuple[tuple[str, int], ...]) -> metadata.EntryPoints:
    """Read the entry points of a group, again only when a package was installed or removed."""
    return metadata.entry_points(group=group)


def _state(folder: str) -> tuple[str, int]:
    try:
        return folder, os.stat(folder).st_mtime_ns
    except OSError:
        return folder, 0


def _allowed(entry: metadata.EntryPoint) -> bool:
    wanted = os.environ.get(ALLOW_LIST)
    if wanted is None:
        return True
    distribution = entry.dist.name if entry.dist else ""
    if distribution == "reweight-core":
        return True
    return bool({entry.name, distribution} & {part.strip() for part in wanted.split(",")})


def _load(kind: str, entry: metadata.EntryPoint) -> Any:
    try:
        record = entry.load()
    except SystemExit as error:
        raise ImportError(f"importing {entry.module} ends the program") from error
    _, record_class = GROUPS[kind]
    if not isinstance(record, record_class):
        raise TypeError(f"entry point {entry.value} is of type {type(record).__name__}, not {record_class.__name__}")
    if record.name != entry.name:  # type: ignore[attr-defined]  # every record class has a name
        raise ValueError(f"entry point '{entry.name}' holds a record named '{record.name}'")  # type: ignore[attr-defined]
    if kind in ("component", "observer") and record.name == "none":  # type: ignore[attr-defined]
        flag = {"component": "--with", "observer": "--observe"}[kind]
        raise ValueError(f"'none' can never be chosen, because {flag} none means no {kind}: rename it")
    return record


def _source(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _clash(kind: str, name: str, entries: list[metadata.EntryPoint]) -> str:
    return f"{kind} '{name}' is provided by {' and '.join(map(_source, entries))}: uninstall one of them"
