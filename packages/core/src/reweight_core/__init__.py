"""Training classifiers on noisy or unbalanced data by learning how much each example should count.

`configure` and `train` run what the command line runs. The other names are what a plugin needs. Importing this
package imports no torch; what needs torch is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reweight_core.config.options import option
from reweight_core.config.resolve import configure
from reweight_core.config.run_config import DataConfig, RunConfig
from reweight_core.config.weighting_options import WeightingOptions
from reweight_core.engine.state import part_of, prefixed
from reweight_core.errors import UserError
from reweight_core.plugins.hookspecs import Stage, hookimpl
from reweight_core.plugins.records import (
    CommandPlugin,
    ComponentPlugin,
    Context,
    DataPlugin,
    MethodPlugin,
    ModelPlugin,
    NoisePlugin,
    TablePlugin,
    imported,
)

if TYPE_CHECKING:
    from reweight_core.data.batch import Batch, target_rows
    from reweight_core.data.dataset import Dataset, Split
    from reweight_core.data.examples import Examples
    from reweight_core.data.images import ImageFiles
    from reweight_core.engine.step import Step
    from reweight_core.engine.virtual_step import VirtualSGD
    from reweight_core.engine.weighting_network import WeightingNetwork
    from reweight_core.runs.evaluate import evaluate
    from reweight_core.runs.predict import load
    from reweight_core.training.loop import train
    from reweight_core.training.resume import resume

_LAZY = {
    "Batch": "reweight_core.data.batch",
    "Dataset": "reweight_core.data.dataset",
    "Examples": "reweight_core.data.examples",
    "ImageFiles": "reweight_core.data.images",
    "Split": "reweight_core.data.dataset",
    "Step": "reweight_core.engine.step",
    "VirtualSGD": "reweight_core.engine.virtual_step",
    "WeightingNetwork": "reweight_core.engine.weighting_network",
    "evaluate": "reweight_core.runs.evaluate",
    "load": "reweight_core.runs.predict",
    "resume": "reweight_core.training.resume",
    "target_rows": "reweight_core.data.batch",
    "train": "reweight_core.training.loop",
}

__all__ = [
    "Batch",
    "CommandPlugin",
    "ComponentPlugin",
    "Context",
    "DataConfig",
    "DataPlugin",
    "Dataset",
    "Examples",
    "ImageFiles",
    "MethodPlugin",
    "ModelPlugin",
    "NoisePlugin",
    "RunConfig",
    "Split",
    "Stage",
    "Step",
    "TablePlugin",
    "UserError",
    "VirtualSGD",
    "WeightingNetwork",
    "WeightingOptions",
    "configure",
    "evaluate",
    "hookimpl",
    "imported",
    "load",
    "option",
    "part_of",
    "prefixed",
    "resume",
    "target_rows",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
