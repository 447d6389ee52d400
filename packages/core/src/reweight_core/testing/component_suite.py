"""The contract of a component plugin, as tests."""

from __future__ import annotations

from typing import Any, ClassVar

from reweight_core.config.options import Owner
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

    def parts(self, **options: Any) -> Parts:
        """Build what a run with the component trains with, on tiny data."""
        return tiny_parts(self.method, **{"with": (self.name,), **self.options, **options})

    def owner(self, config_class: type) -> Owner:
        """Return who declares the plugin's options."""
        return Owner.of_component(self.name, config_class)

    def plugin_object(self) -> object:
        """Return what the plugin builds."""
        return self.parts().hooks.plugins[self.name]
