"""Data that a Python program hands over: the dataset ``memory``, whose defaults follow from what it is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import gt

from reweight_core.config.options import option
from reweight_core.data.fitting import fitting_defaults
from reweight_core.errors import UserError
from reweight_core.plugins.records import DataPlugin

if TYPE_CHECKING:
    from reweight_core.data.dataset import Dataset


@attrs.frozen
class MemoryOptions:
    """What the data are, so that the defaults fit them."""

    memory_kind: Literal["features", "images"] = option("features", "What the program's data are.")
    memory_examples: int | None = option(None, "Training examples that the program has.", check=gt(0))


def _fitted_defaults(config: MemoryOptions) -> Mapping[str, Any]:
    return {} if config.memory_examples is None else fitting_defaults(config.memory_kind, config.memory_examples)


def _refuse(config: MemoryOptions) -> Dataset:
    raise UserError(
        "--data memory: is what a Python program hands over (reweight_core.ReweightClassifier, load_data) and cannot "
        "be loaded without it"
    )


plugin = DataPlugin(
    name="memory",
    summary="what a Python program hands over, such as ReweightClassifier: not for the command line",
    build=_refuse,
    config=MemoryOptions,
    fitted_defaults=_fitted_defaults,
)
