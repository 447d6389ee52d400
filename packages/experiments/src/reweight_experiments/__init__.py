"""Many runs in one call: methods by settings by seeds, and the settings of published tables.

`run_sweep`, `reproduce` and `compare` do what the commands ``reweight sweep``, ``reproduce`` and ``compare`` do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reweight_experiments.carry_out import Watcher
    from reweight_experiments.report import Results
    from reweight_experiments.reproduction import reproduce
    from reweight_experiments.side_by_side import SideBySide, compare
    from reweight_experiments.slurm import Slurm
    from reweight_experiments.sweep import run_sweep

_LAZY = {
    "Results": "reweight_experiments.report",
    "SideBySide": "reweight_experiments.side_by_side",
    "Slurm": "reweight_experiments.slurm",
    "Watcher": "reweight_experiments.carry_out",
    "compare": "reweight_experiments.side_by_side",
    "reproduce": "reweight_experiments.reproduction",
    "run_sweep": "reweight_experiments.sweep",
}

__all__ = ["Results", "SideBySide", "Slurm", "Watcher", "compare", "reproduce", "run_sweep"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
