"""The data that a configuration names, loaded and prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reweight_core.config.resolve import fold_of, noise_of, test_share
from reweight_core.config.run_config import DataConfig
from reweight_core.errors import PluginError, UserError
from reweight_core.plugins import registry

if TYPE_CHECKING:
    from reweight_core.data.dataset import Dataset
    from reweight_core.data.prepare import Plan, PreparedData


def plan_of(config: DataConfig) -> Plan:
    """Return what the options do to a dataset."""
    from reweight_core.data.prepare import Plan

    noise = noise_of(config)
    return Plan(
        seed=config.seed,
        corrupt=noise,
        noise_needs_images=noise is not None and noise.needs_images,
        noise_needs_mask=noise is not None and noise.needs_mask,
        imb=config.imb,
        meta_size=config.meta_size,
        meta_draw=config.meta_draw,
        val_size=config.val_size,
        val_labels=config.val_labels,
        val_fold=fold_of(config),
        test=test_share(config) or ("none" if config.test_from == "none" else "own"),
    )


def load_dataset(config: DataConfig) -> Dataset:
    """Build the dataset that the options name, as its plugin gives it.

    Raises:
        UserError: if it cannot be loaded, or the plugin gives something else than a dataset.
    """
    from reweight_core.data.dataset import Dataset

    dataset = registry.build("data", config.data, config.data_options)
    if not isinstance(dataset, Dataset):
        raise PluginError(
            f"data '{config.data}': build returned {type(dataset).__name__}, not a Dataset: report it to the "
            "plugin's author"
        )
    return dataset


def load_data(config: DataConfig, dataset: Dataset | None = None) -> PreparedData:
    """Load the dataset that the options name and prepare it (`reweight_core.data.prepare`).

    Args:
        config: the options.
        dataset: the dataset that they name, if it is at hand.

    Raises:
        UserError: if it cannot be loaded, has no test set, or a class has too few examples for what is asked.
    """
    from reweight_core.data.prepare import NoTestSetError, prepare

    try:
        return prepare(load_dataset(config) if dataset is None else dataset, plan_of(config))
    except NoTestSetError as error:
        raise UserError(f"--data {config.data}: {error}") from None
