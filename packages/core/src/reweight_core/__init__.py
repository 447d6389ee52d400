"""Training classifiers on noisy or unbalanced data by learning how much each example should count.

`configure` and `train` run what the command line runs. The other names are what a plugin needs, a command included.
Importing this package imports no torch; what needs torch is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reweight_core.config.options import Option, option
from reweight_core.config.resolve import as_values, configure, core_options, known_options, over, read_file
from reweight_core.config.run_config import DataConfig, RunConfig
from reweight_core.config.weighting_options import WeightingOptions
from reweight_core.data.fitting import fitting_defaults
from reweight_core.engine.stage import Stage
from reweight_core.engine.state import part_of, prefixed
from reweight_core.errors import DivergedError, InterruptedRun, UserError, nearest, reason
from reweight_core.files import cache_folder, locked, refuse_outputs, write_json, write_text, written_whole
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.imported import imported
from reweight_core.plugins.records import (
    CommandPlugin,
    ComponentPlugin,
    Context,
    DataPlugin,
    LossPlugin,
    MethodPlugin,
    ModelPlugin,
    NoisePlugin,
    NoOptions,
    ObserverPlugin,
    TablePlugin,
)

if TYPE_CHECKING:
    from reweight_core.cli.console import console
    from reweight_core.cli.output_options import json_option, quiet_option
    from reweight_core.cli.plugin_options import DeclaringCommand, config_option, first_pass, take_given
    from reweight_core.cli.progress import Pace, Progress, duration, in_one_line
    from reweight_core.cli.run_argument import run_argument
    from reweight_core.config.compatibility import refuse_misfits, uses_clean_examples
    from reweight_core.config.load_data import load_data
    from reweight_core.data.batch import Batch, target_rows
    from reweight_core.data.dataset import Dataset, Split
    from reweight_core.data.examples import Examples
    from reweight_core.data.features import Features, Table, read_table, read_values
    from reweight_core.data.folds import in_fold
    from reweight_core.data.images import ImageFiles, decode
    from reweight_core.data.mapped_array import MappedArray
    from reweight_core.data.pixel_statistics import IMAGENET_MEAN, IMAGENET_STD, mean_and_std
    from reweight_core.data.planted import noise_estimate
    from reweight_core.data.prepare import Corruption, PreparedData
    from reweight_core.data.rows import FeatureRows, column_statistics, refuse_unusable
    from reweight_core.data.stored import Stored
    from reweight_core.engine.head import find_head
    from reweight_core.engine.losses import cross_entropy
    from reweight_core.engine.network import Network, ParameterOptimizer
    from reweight_core.engine.outputs import Outputs
    from reweight_core.engine.step import Step
    from reweight_core.engine.virtual_step import VirtualSGD
    from reweight_core.engine.weighting_network import WeightingNetwork
    from reweight_core.integrations.sklearn import ReweightClassifier
    from reweight_core.machine.device import cpu_name, resolve_device, total_memory, usable_cpus
    from reweight_core.runs.evaluate import evaluate
    from reweight_core.runs.folder import RunRecord, read_config
    from reweight_core.runs.predict import Predictions, load, predict
    from reweight_core.runs.samples import Samples, read_samples
    from reweight_core.training.build import build_observers
    from reweight_core.training.loop import FinishedRun, train
    from reweight_core.training.resume import resume
    from reweight_core.training.reweighter import Reweighter
    from reweight_core.training.training_set import training_set

_LAZY = {
    "Batch": "reweight_core.data.batch",
    "Corruption": "reweight_core.data.prepare",
    "Dataset": "reweight_core.data.dataset",
    "DeclaringCommand": "reweight_core.cli.plugin_options",
    "Examples": "reweight_core.data.examples",
    "FeatureRows": "reweight_core.data.rows",
    "Features": "reweight_core.data.features",
    "FinishedRun": "reweight_core.training.loop",
    "IMAGENET_MEAN": "reweight_core.data.pixel_statistics",
    "IMAGENET_STD": "reweight_core.data.pixel_statistics",
    "ImageFiles": "reweight_core.data.images",
    "MappedArray": "reweight_core.data.mapped_array",
    "Network": "reweight_core.engine.network",
    "Outputs": "reweight_core.engine.outputs",
    "Pace": "reweight_core.cli.progress",
    "ParameterOptimizer": "reweight_core.engine.network",
    "Predictions": "reweight_core.runs.predict",
    "PreparedData": "reweight_core.data.prepare",
    "Progress": "reweight_core.cli.progress",
    "ReweightClassifier": "reweight_core.integrations.sklearn",
    "Reweighter": "reweight_core.training.reweighter",
    "RunRecord": "reweight_core.runs.folder",
    "Samples": "reweight_core.runs.samples",
    "Split": "reweight_core.data.dataset",
    "Step": "reweight_core.engine.step",
    "Stored": "reweight_core.data.stored",
    "Table": "reweight_core.data.features",
    "VirtualSGD": "reweight_core.engine.virtual_step",
    "WeightingNetwork": "reweight_core.engine.weighting_network",
    "build_observers": "reweight_core.training.build",
    "column_statistics": "reweight_core.data.rows",
    "config_option": "reweight_core.cli.plugin_options",
    "console": "reweight_core.cli.console",
    "cpu_name": "reweight_core.machine.device",
    "cross_entropy": "reweight_core.engine.losses",
    "decode": "reweight_core.data.images",
    "duration": "reweight_core.cli.progress",
    "evaluate": "reweight_core.runs.evaluate",
    "find_head": "reweight_core.engine.head",
    "first_pass": "reweight_core.cli.plugin_options",
    "in_fold": "reweight_core.data.folds",
    "in_one_line": "reweight_core.cli.progress",
    "json_option": "reweight_core.cli.output_options",
    "load": "reweight_core.runs.predict",
    "load_data": "reweight_core.config.load_data",
    "mean_and_std": "reweight_core.data.pixel_statistics",
    "noise_estimate": "reweight_core.data.planted",
    "predict": "reweight_core.runs.predict",
    "quiet_option": "reweight_core.cli.output_options",
    "read_config": "reweight_core.runs.folder",
    "read_samples": "reweight_core.runs.samples",
    "read_table": "reweight_core.data.features",
    "read_values": "reweight_core.data.features",
    "refuse_misfits": "reweight_core.config.compatibility",
    "refuse_unusable": "reweight_core.data.rows",
    "resolve_device": "reweight_core.machine.device",
    "resume": "reweight_core.training.resume",
    "run_argument": "reweight_core.cli.run_argument",
    "take_given": "reweight_core.cli.plugin_options",
    "target_rows": "reweight_core.data.batch",
    "total_memory": "reweight_core.machine.device",
    "train": "reweight_core.training.loop",
    "training_set": "reweight_core.training.training_set",
    "usable_cpus": "reweight_core.machine.device",
    "uses_clean_examples": "reweight_core.config.compatibility",
}

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Batch",
    "CommandPlugin",
    "ComponentPlugin",
    "Context",
    "Corruption",
    "DataConfig",
    "DataPlugin",
    "Dataset",
    "DeclaringCommand",
    "DivergedError",
    "Examples",
    "FeatureRows",
    "Features",
    "FinishedRun",
    "ImageFiles",
    "InterruptedRun",
    "LossPlugin",
    "MappedArray",
    "MethodPlugin",
    "ModelPlugin",
    "Network",
    "NoOptions",
    "NoisePlugin",
    "ObserverPlugin",
    "Option",
    "Outputs",
    "Pace",
    "ParameterOptimizer",
    "Predictions",
    "PreparedData",
    "Progress",
    "ReweightClassifier",
    "Reweighter",
    "RunConfig",
    "RunRecord",
    "Samples",
    "Split",
    "Stage",
    "Step",
    "Stored",
    "Table",
    "TablePlugin",
    "UserError",
    "VirtualSGD",
    "WeightingNetwork",
    "WeightingOptions",
    "as_values",
    "build_observers",
    "cache_folder",
    "column_statistics",
    "config_option",
    "configure",
    "console",
    "core_options",
    "cpu_name",
    "cross_entropy",
    "decode",
    "duration",
    "evaluate",
    "find_head",
    "first_pass",
    "fitting_defaults",
    "hookimpl",
    "imported",
    "in_fold",
    "in_one_line",
    "json_option",
    "known_options",
    "load",
    "load_data",
    "locked",
    "mean_and_std",
    "nearest",
    "noise_estimate",
    "option",
    "over",
    "part_of",
    "predict",
    "prefixed",
    "quiet_option",
    "read_config",
    "read_file",
    "read_samples",
    "read_table",
    "read_values",
    "reason",
    "refuse_misfits",
    "refuse_outputs",
    "refuse_unusable",
    "registry",
    "resolve_device",
    "resume",
    "run_argument",
    "take_given",
    "target_rows",
    "total_memory",
    "train",
    "training_set",
    "usable_cpus",
    "uses_clean_examples",
    "write_json",
    "write_text",
    "written_whole",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if not name.startswith("_") and name in registry.names("command"):
        try:
            function = registry.function_of(name)
        except UserError as error:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from error
        if function is not None:
            return function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
