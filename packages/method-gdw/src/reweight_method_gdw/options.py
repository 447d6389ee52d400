"""Options of GDW."""

import attrs
from attrs.validators import ge

from reweight_core import WeightingOptions, option


@attrs.frozen
class GDWConfig(WeightingOptions):
    """Options of ``--method gdw``; the first stage's weighting network has its own."""

    eta_w: float | None = option(
        None,
        "Step size of the class-level weights. Default: 10 times the number of classes, so the paper's 100 for 10 "
        "classes and 1000 for 100.",
        check=ge(0),
    )
    clip: float = option(0.2, "Largest change of a class-level weight in one step.", check=ge(0))
