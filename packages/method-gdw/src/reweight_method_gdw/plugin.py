"""The plugin record of GDW."""

from reweight_core import MethodPlugin, imported
from reweight_method_gdw.options import GDWConfig

plugin = MethodPlugin(
    name="gdw",
    summary="a weight for every class-level part of an example's gradient (Chen et al. 2021)",
    build=imported("reweight_method_gdw.gdw:GDW"),
    config=GDWConfig,
    needs_meta_set=True,
    looks_ahead="network",
    reuses_weights=True,
    presets={"fast": {"lookahead": "head"}},
    one_label=True,
    several_processes=True,
)
