"""Training classifiers on noisy or unbalanced data by learning how much each example should count.

`configure` and `train` run what the command line runs. The other names are what a plugin needs. Importing this
package imports no torch; what needs torch is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reweight_core.config import DataConfig, RunConfig, configure
from reweight_core.errors import UserError
from reweight_core.hookspecs import hookimpl
from reweight_core.options import option
from reweight_core.records import (
    ComponentPlugin,
    Context,
    DataPlugin,
    MethodPlugin,
    ModelPlugin,
    NoisePlugin,
    TablePlugin,
)
from reweight_core.stages import Stage

if TYPE_CHECKING:
    from reweight_core.dataset import Dataset, Split
    from reweight_core.evaluation import evaluate
    from reweight_core.examples import Examples
    from reweight_core.images import ImageFiles
    from reweight_core.prediction import load
    from reweight_core.resumption import resume
    from reweight_core.step import Batch, Step
    from reweight_core.training import train
    from reweight_core.virtual_step import VirtualSGD
    from reweight_core.weighting import WeightingNetwork

_LAZY = {
    "Batch": "reweight_core.step",
    "Dataset": "reweight_core.dataset",
    "Examples": "reweight_core.examples",
    "ImageFiles": "reweight_core.images",
    "Split": "reweight_core.dataset",
    "Step": "reweight_core.step",
    "VirtualSGD": "reweight_core.virtual_step",
    "WeightingNetwork": "reweight_core.weighting",
    "evaluate": "reweight_core.evaluation",
    "load": "reweight_core.prediction",
    "resume": "reweight_core.resumption",
    "train": "reweight_core.training",
}

__all__ = [
    "Batch",
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
    "configure",
    "evaluate",
    "hookimpl",
    "load",
    "option",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
