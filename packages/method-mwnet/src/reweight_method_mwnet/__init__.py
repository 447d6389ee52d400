"""Meta-Weight-Net (Shu et al., NeurIPS 2019)."""

import attrs
from attrs.validators import ge, gt

from reweight_core import Context, MethodPlugin, option


@attrs.frozen
class MWNetConfig:
    """Options of ``--method mwnet``; defaults are those of the official code for noisy labels."""

    weight_lr: float = option(1e-3, "Learning rate of the weighting network (Adam).", check=gt(0))
    weight_l2: float = option(1e-4, "Weight decay of the weighting network.", check=ge(0))
    weight_hidden: int = option(100, "Hidden units of the weighting network.", check=gt(0))


def _build(config: MWNetConfig, context: Context) -> object:
    from reweight_method_mwnet.mwnet import MWNet

    return MWNet(config, context)


plugin = MethodPlugin(
    name="mwnet",
    summary="example weights as a learned function of the loss (Shu et al. 2019)",
    build=_build,
    config=MWNetConfig,
    needs_meta_set=True,
    looks_ahead="network",
    reuses_weights=True,
)
