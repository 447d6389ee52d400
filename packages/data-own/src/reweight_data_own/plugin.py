"""The records that the entry points name; what they build from is imported when it is used."""

from __future__ import annotations

import attrs

from reweight_core import DataPlugin, imported
from reweight_data_own.options import FeaturesOptions, HfOptions


def _long_tail(plugin: DataPlugin) -> DataPlugin:
    return attrs.evolve(
        plugin,
        name=f"{plugin.name}-lt",
        summary=f"{plugin.name} with a long tail (--imb 0.01 unless given)",
        defaults={**plugin.defaults, "imb": 0.01},
    )


features = DataPlugin(
    name="features",
    summary="your own embeddings and tables: .npy, .npz, .safetensors or Parquet, mapped where they lie",
    build=imported("reweight_data_own.features:load"),
    config=FeaturesOptions,
    fitted_defaults=imported("reweight_data_own.fitting:fitting_features"),
    read_new=imported("reweight_data_own.features:read_new"),
)
hf = DataPlugin(
    name="hf",
    summary="a Hugging Face dataset of images or texts with labels, from disk or by name",
    build=imported("reweight_data_own.hf:load"),
    config=HfOptions,
    fitted_defaults=imported("reweight_data_own.fitting:fitting_hf"),
    read_new=imported("reweight_data_own.hf:read_new"),
)
features_lt = _long_tail(features)
hf_lt = _long_tail(hf)
