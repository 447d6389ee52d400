"""Learning to Reweight Examples (Ren et al., ICML 2018) and two baselines of that paper."""

from typing import Any

import attrs

from reweight_core import Context, MethodPlugin, option


@attrs.frozen
class L2RWConfig:
    """Options of ``--method l2rw``."""

    clean_decay: bool = option(
        True,
        "Add the weight decay of weight matrices and kernels to the clean loss, as the official CIFAR code does; "
        "the paper's clean loss has none.",
    )


def _build_l2rw(config: L2RWConfig, context: Context) -> object:
    from reweight_method_l2rw.l2rw import L2RW

    return L2RW(config, context)


def _build_random(config: Any, context: Context) -> object:
    from reweight_method_l2rw.baselines import RandomWeights

    return RandomWeights(context)


def _build_clean_only(config: Any, context: Context) -> object:
    from reweight_method_l2rw.baselines import CleanOnly

    return CleanOnly()


l2rw_plugin = MethodPlugin(
    name="l2rw",
    summary="example weights from the direction that improves a clean batch (Ren et al. 2018)",
    build=_build_l2rw,
    config=L2RWConfig,
    needs_meta_set=True,
    looks_ahead="network",
)
random_plugin = MethodPlugin(
    name="random",
    summary="random rectified example weights (baseline of L2RW, Eq. 16)",
    build=_build_random,
)
clean_only_plugin = MethodPlugin(
    name="clean-only",
    summary="plain training on the clean meta set alone (baseline of L2RW)",
    build=_build_clean_only,
    needs_meta_set=True,
)
