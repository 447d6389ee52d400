"""The plugin records of the methods that learn from trusted examples."""

from reweight_core import ComponentPlugin, MethodPlugin, imported
from reweight_method_trusted.options import (
    FineTuneConfig,
    GenLabelConfig,
    GLCConfig,
    INSWConfig,
    PosteriorLabelConfig,
    SoftLabelConfig,
)

insw = MethodPlugin(
    name="insw",
    summary="one learned weight for each example (Hu et al. 2019)",
    build=imported("reweight_method_trusted.insw:INSW"),
    config=INSWConfig,
    needs_meta_set=True,
    looks_ahead="network",
    reuses_weights=True,
    several_processes=True,
)
soft_label = MethodPlugin(
    name="soft-label",
    summary="a learned label smoothing, or a learned label row, for each example (Vyas et al. 2020)",
    build=imported("reweight_method_trusted.soft_label:SoftLabel"),
    config=SoftLabelConfig,
    needs_meta_set=True,
    looks_ahead="network",
    reuses_weights=True,
    one_label=True,
    several_processes=True,
)
gen_label = MethodPlugin(
    name="gen-label",
    summary="label distributions learned in place of the labels (MSLG, Algan & Ulusoy 2020)",
    build=imported("reweight_method_trusted.gen_label:GenLabel"),
    config=GenLabelConfig,
    needs_meta_set=True,
    looks_ahead="network",
    reuses_weights=True,
    one_label=True,
    several_processes=True,
)
glc = MethodPlugin(
    name="glc",
    summary="a corruption matrix from the trusted examples corrects the loss of the others (Hendrycks et al. 2018)",
    build=imported("reweight_method_trusted.glc:GLC"),
    config=GLCConfig,
    needs_meta_set=True,
    one_label=True,
    several_processes=True,
)
posterior_label = MethodPlugin(
    name="posterior-label",
    summary="labels corrected by a network of the trusted examples and the noise that it shows",
    build=imported("reweight_method_trusted.posterior_label:PosteriorLabel"),
    config=PosteriorLabelConfig,
    needs_meta_set=True,
    one_label=True,
    several_processes=True,
)
fine_tune = ComponentPlugin(
    name="fine-tune",
    summary="plain training on the clean meta set alone after any method",
    build=imported("reweight_method_trusted.fine_tune:FineTune"),
    config=FineTuneConfig,
    needs_meta_set=True,
    several_processes=True,
)
