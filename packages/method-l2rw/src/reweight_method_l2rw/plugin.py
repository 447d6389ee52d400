"""The plugin records of L2RW and its baselines."""

from reweight_core import MethodPlugin, imported
from reweight_method_l2rw.options import L2RWConfig, WeightedConfig

l2rw = MethodPlugin(
    name="l2rw",
    summary="example weights from the direction that improves a clean batch (Ren et al. 2018)",
    build=imported("reweight_method_l2rw.l2rw:L2RW"),
    config=L2RWConfig,
    needs_meta_set=True,
    looks_ahead="network",
    presets={"paper": {"max_weight": 0.0}, "fast": {"lookahead": "head"}},
    several_processes=True,
)
random = MethodPlugin(
    name="random",
    summary="random rectified example weights (baseline of L2RW, Eq. 16)",
    build=imported("reweight_method_l2rw.baselines:RandomWeights"),
    several_processes=True,
)
weighted = MethodPlugin(
    name="weighted",
    summary="the share of right labels in each observed class, if it is known (baseline of L2RW)",
    build=imported("reweight_method_l2rw.baselines:Weighted"),
    config=WeightedConfig,
    several_processes=True,
)
clean_only = MethodPlugin(
    name="clean-only",
    summary="plain training on the clean meta set alone (baseline of L2RW)",
    build=imported("reweight_method_l2rw.baselines:CleanOnly"),
    needs_meta_set=True,
    several_processes=True,
)
