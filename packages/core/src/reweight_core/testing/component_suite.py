"""The contract of a component plugin, as tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from reweight_core.testing.method_suite import MethodSuite
from reweight_core.testing.tiny import tiny_parts
from reweight_core.training.build import Parts


class ComponentSuite(MethodSuite):
    """Subclass it as ``class TestMine(ComponentSuite)`` and name the component.

    Attributes:
        name: the component's name on the command line.
        method: the method that it is tested with.
        options: options to test it with, by name (the component's with its name before them).
    """

    kind = "component"
    method: ClassVar[str] = "erm"

    def parts(self, observers: Sequence[object] = (), **options: Any) -> Parts:
        """Build what a run with the component trains with, on tiny data."""
        return tiny_parts(self.method, observers, **{"with": (self.name,), **self.options, **options})

    def plugin_object(self) -> object:
        """Return what the plugin builds."""
        return self.parts().hooks.plugins[self.name]
