"""Functions and classes of a plugin that are named in its record and imported when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import attrs


@attrs.frozen
class Imported:
    """A function or class that is imported when it is first called.

    Attributes:
        target: ``package.module:name``.
        arguments: what it is called with before the arguments of the call.
        keywords: what it is called with by name.
    """

    target: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = attrs.field(factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        """Import the target and call it."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)(*self.arguments, *arguments, **self.keywords)


def imported(target: str, *arguments: Any, **keywords: Any) -> Imported:
    """Name what a record builds without importing it: ``build=imported("my_package.my_method:MyMethod")``.

    Args:
        target: ``package.module:name`` of a function or class.
        arguments: what it is to be called with before the arguments that core gives.
        keywords: what it is to be called with by name.

    Raises:
        ValueError: if the target is no ``package.module:name``.
    """
    if not all(target.partition(":")):
        raise ValueError(f"imported('{target}'): must be package.module:name")
    return Imported(target, arguments, keywords)
