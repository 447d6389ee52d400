"""The training set of a run: that of its data, with what its options put there beside it."""

from __future__ import annotations

from reweight_core.config.compatibility import uses_clean_examples
from reweight_core.config.run_config import RunConfig
from reweight_core.data.planted import with_planted
from reweight_core.data.prepare import PreparedData
from reweight_core.data.trusted import with_trusted
from reweight_core.plugins import registry


def training_set(config: RunConfig, data: PreparedData) -> PreparedData:
    """Put planted examples (``--plant``) and trusted ones (``--meta-use both``) behind the training examples.

    Args:
        config: the options.
        data: as `reweight_core.load_data` gives them, with a meta set if an option asks for its examples.

    Raises:
        UserError: if there are too few clean examples.
    """
    method = registry.find("method", config.method)
    components = {name: registry.find("component", name) for name in config.with_}
    is_used = uses_clean_examples(config, method, components)
    if config.plant:
        data = with_planted(data, config.plant, config.seed, is_used)
    if config.meta_use == "both":
        data = with_trusted(data, config.seed, is_used)
    return data
