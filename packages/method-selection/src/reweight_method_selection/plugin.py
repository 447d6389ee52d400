"""The plugin records of the methods that choose examples, and of the component that draws them."""

from reweight_core import ComponentPlugin, MethodPlugin, imported
from reweight_method_selection.options import CoTeachingConfig, CrustConfig

co_teaching = MethodPlugin(
    name="co-teaching",
    summary="two networks, each trained on the examples of small loss of the other (Han et al. 2018)",
    build=imported("reweight_method_selection.co_teaching:CoTeaching"),
    config=CoTeachingConfig,
    several_processes=True,
)
crust = MethodPlugin(
    name="crust",
    summary="train on those examples of each class whose gradients stand for the others' (Mirzasoleiman et al. 2020)",
    build=imported("reweight_method_selection.crust:Crust"),
    config=CrustConfig,
    several_processes=True,
)
hard_mining = MethodPlugin(
    name="hard-mining",
    summary="all examples of the small classes, as many of the large ones, of the largest loss (baseline of L2RW)",
    build=imported("reweight_method_selection.hard_mining:HardMining"),
    several_processes=True,
)
resample = ComponentPlugin(
    name="resample",
    summary="draw the examples of an epoch so that every class comes equally often",
    build=imported("reweight_method_selection.resample:Resample"),
    several_processes=True,
)
