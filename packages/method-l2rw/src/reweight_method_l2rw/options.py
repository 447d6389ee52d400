"""Options of L2RW and of its baselines."""

import attrs
from attrs.validators import and_, ge, lt

from reweight_core import option


@attrs.frozen
class L2RWConfig:
    """Options of ``--method l2rw``."""

    clean_decay: bool = option(
        True,
        "Add the weight decay of weight matrices and kernels to the clean loss, as the official CIFAR code does; "
        "the paper's clean loss has none.",
    )
    max_weight: float = option(
        3.0,
        "Largest weight of an example, where 1 is plain training; what is above is cut off. 0 for no bound, as in the "
        "paper, whose steps can come to rest on a few examples.",
        check=ge(0),
    )


@attrs.frozen
class WeightedConfig:
    """Options of ``--method weighted``."""

    background: int | None = option(
        None, "Class that wrong labels are of. Default: the one with the most labels in the training set.", check=ge(0)
    )
    rate: float = option(
        0.4, "Share of all labels that were turned into it (--noise background:RATE).", check=and_(ge(0), lt(1))
    )
