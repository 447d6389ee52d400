"""The plugin records of FSR and of its components."""

from reweight_core import ComponentPlugin, MethodPlugin, imported
from reweight_method_fsr.options import EMAConfig, FSRConfig, LabelSmoothingConfig, MixUpConfig, RelabelConfig
from reweight_method_fsr.presets import PRESETS


def uses_meta_set(config: FSRConfig) -> bool:
    """Return whether the method uses a clean meta set, or a dictionary of its own."""
    return config.reward == "given"


fsr = MethodPlugin(
    name="fsr",
    summary="example weights without a clean set, from a dictionary of trusted examples (Zhang & Pfister 2021)",
    build=imported("reweight_method_fsr.fsr:FSR"),
    config=FSRConfig,
    looks_ahead="head",
    uses_meta_set=uses_meta_set,
    presets=PRESETS,
    several_processes=True,
)
mixup = ComponentPlugin(
    name="mixup",
    summary="train on convex combinations of two images and their labels (Zhang et al. 2018)",
    build=imported("reweight_method_fsr.components.mixup:MixUp"),
    config=MixUpConfig,
    mixes_targets=True,
    several_processes=True,
)
relabel = ComponentPlugin(
    name="relabel",
    summary="a second loss with pseudo-labels from averaged logits (FSR, section 4.3)",
    build=imported("reweight_method_fsr.components.relabel:Relabel"),
    config=RelabelConfig,
    per_example=True,
    several_processes=True,
)
label_smoothing = ComponentPlugin(
    name="label-smoothing",
    summary="spread a share of every target over all classes (Szegedy et al. 2016)",
    build=imported("reweight_method_fsr.components.label_smoothing:LabelSmoothing"),
    config=LabelSmoothingConfig,
    mixes_targets=True,
    several_processes=True,
)
ema = ComponentPlugin(
    name="ema",
    summary="evaluate and keep an exponential moving average of the network's weights",
    build=imported("reweight_method_fsr.components.ema:EMA"),
    config=EMAConfig,
    several_processes=True,
)
