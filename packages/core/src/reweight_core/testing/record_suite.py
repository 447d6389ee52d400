"""What holds for every plugin's record, as tests."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

from reweight_core.config.options import options_of
from reweight_core.config.resolve import KINDS_WITH_OPTIONS, check_plugin, owner_of
from reweight_core.plugins import registry


class RecordSuite:
    """The base of the other suites.

    Attributes:
        kind: kind of plugin.
        name: its name on the command line.
    """

    kind: ClassVar[str]
    name: ClassVar[str]

    def test_entry_point_holds_a_complete_record(self) -> None:
        plugin = registry.find(self.kind, self.name)
        assert plugin.summary and "\n" not in plugin.summary, "the record needs a summary of one line"
        if self.kind in KINDS_WITH_OPTIONS:
            helpless = [item.flag for item in options_of(owner_of(self.kind, self.name)) if not item.help]
            assert not helpless, f"options without a help text: {helpless}"

    def test_options_and_defaults_can_be_used(self) -> None:
        if self.kind in KINDS_WITH_OPTIONS:
            check_plugin(self.kind, self.name)

    def test_finding_the_plugin_imports_no_torch(self) -> None:
        code = (
            "import sys; from reweight_core.plugins import registry; "
            f"registry.find({self.kind!r}, {self.name!r}); sys.exit('torch' in sys.modules)"
        )
        imports_torch = subprocess.run([sys.executable, "-c", code], check=False).returncode
        assert not imports_torch, (
            "importing the module of the entry point imports torch (Dataset, Split and other names of reweight_core "
            "do, too): move that into the functions that need it, or name what is built by imported('module:Name')"
        )
