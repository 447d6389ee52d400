"""Options of L2RW."""

import attrs

from reweight_core import option


@attrs.frozen
class L2RWConfig:
    """Options of ``--method l2rw``."""

    clean_decay: bool = option(
        True,
        "Add the weight decay of weight matrices and kernels to the clean loss, as the official CIFAR code does; "
        "the paper's clean loss has none.",
    )
