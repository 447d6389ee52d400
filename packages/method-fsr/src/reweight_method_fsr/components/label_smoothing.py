"""Label smoothing (Szegedy et al. 2016)."""

from __future__ import annotations

from collections.abc import Generator

import attrs

from reweight_core import Batch, Context, hookimpl, target_rows
from reweight_method_fsr.options import LabelSmoothingConfig


class LabelSmoothing:
    """Spreads a share of every target row evenly over all classes."""

    def __init__(self, config: LabelSmoothingConfig, context: Context):
        self._amount, self._num_classes = config.amount, context.num_classes

    @hookimpl(wrapper=True)
    def transform_batch(self, batch: Batch) -> Generator[None, Batch, Batch]:
        """y <- (1 - s) y + s/C."""
        batch = yield
        rows = target_rows(batch, self._num_classes)
        return attrs.evolve(batch, targets=(1 - self._amount) * rows + self._amount / self._num_classes)
