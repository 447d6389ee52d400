"""Generalized Data Weighting via Class-level Gradient Manipulation (Chen et al., NeurIPS 2021)."""

import attrs
from attrs.validators import ge, gt

from reweight_core import Context, MethodPlugin, option


@attrs.frozen
class GDWConfig:
    """Options of ``--method gdw``; defaults are those of the official code for CIFAR-10."""

    eta_w: float = option(
        100.0,
        "Step size of the class-level weights (the paper: 100 for 10 classes, 1000 for 100).",
        check=ge(0),
    )
    clip: float = option(0.2, "Largest change of a class-level weight in one step.", check=ge(0))
    weight_lr: float = option(1e-3, "Learning rate of the weighting network (Adam).", check=gt(0))
    weight_l2: float = option(1e-4, "Weight decay of the weighting network.", check=ge(0))
    weight_hidden: int = option(100, "Hidden units of the weighting network.", check=gt(0))


def _build(config: GDWConfig, context: Context) -> object:
    from reweight_method_gdw.gdw import GDW

    return GDW(config, context)


plugin = MethodPlugin(
    name="gdw",
    summary="a weight for every class-level part of an example's gradient (Chen et al. 2021)",
    build=_build,
    config=GDWConfig,
    needs_meta_set=True,
    looks_ahead="network",
    reuses_weights=True,
    one_label=True,
)
