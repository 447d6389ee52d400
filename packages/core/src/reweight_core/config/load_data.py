"""The data that a configuration names, loaded and prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reweight_core.config.resolve import noise_of, test_share
from reweight_core.config.run_config import DataConfig
from reweight_core.plugins import registry

if TYPE_CHECKING:
    from reweight_core.data.dataset import Dataset
    from reweight_core.data.prepare import Plan, PreparedData


def plan_of(config: DataConfig) -> Plan:
    """Return what the options do to a dataset."""
    from reweight_core.data.prepare import Plan

    return Plan(
        seed=config.seed,
        corrupt=noise_of(config),
        imb=config.imb,
        meta_size=config.meta_size,
        meta_draw=config.meta_draw,
        val_size=config.val_size,
        test_from=config.test_from,
        test_share=test_share(config),
    )


def load_dataset(config: DataConfig) -> Dataset:
    """Build the dataset that the options name, as its plugin gives it."""
    dataset: Dataset = registry.find("data", config.data).build(config.data_options)
    return dataset


def load_data(config: DataConfig) -> PreparedData:
    """Load the dataset that the options name and prepare it (`reweight_core.data.prepare`).

    Raises:
        UserError: if it cannot be loaded, or a class has too few examples for what is asked.
    """
    from reweight_core.data.prepare import prepare

    return prepare(load_dataset(config), plan_of(config))
