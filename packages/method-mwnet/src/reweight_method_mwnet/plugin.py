"""The plugin record of MW-Net."""

from reweight_core import MethodPlugin, WeightingOptions, imported

plugin = MethodPlugin(
    name="mwnet",
    summary="example weights as a learned function of the loss (Shu et al. 2019)",
    build=imported("reweight_method_mwnet.mwnet:MWNet"),
    config=WeightingOptions,
    needs_meta_set=True,
    looks_ahead="network",
    reuses_weights=True,
    several_processes=True,
)
