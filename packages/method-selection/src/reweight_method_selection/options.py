"""Options of the methods that choose examples."""

from typing import Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt

from reweight_core import option


@attrs.frozen
class CoTeachingConfig:
    """Options of ``--method co-teaching``."""

    forget_rate: float = option(
        0.2,
        "Share of each batch that is left out in the end, tau: the share of wrong labels that you expect.",
        check=and_(ge(0), lt(1)),
    )
    gradual_epochs: int = option(
        10, "Epochs over which the share that is left out rises from 0 to --forget-rate, T_k.", check=ge(0)
    )


@attrs.frozen
class CrustConfig:
    """Options of ``--method crust``."""

    share: float = option(0.5, "Share of each observed class that is chosen.", check=and_(gt(0), le(1)))
    warmup_epochs: int = option(5, "Epochs of plain training before the first choice.", check=ge(0))
    coreset: Literal["central", "facility-location"] = option(
        "central",
        "Which examples are chosen by their gradients: the nearest to all others of the class, as the official code "
        "does, or medoids that cover the class, weighted by the size of their clusters, as in the paper.",
    )
    mix: bool = option(True, "Mix every image with another of its observed class, by 9 % on average.")
