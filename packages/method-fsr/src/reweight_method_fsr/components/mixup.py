"""MixUp (Zhang et al. 2018), in the form that FSR uses: the own image always has the larger share."""

from __future__ import annotations

from collections.abc import Generator

import attrs
import torch
from torch import Tensor

from reweight_core import Batch, Context, UserError, hookimpl, target_rows
from reweight_method_fsr.options import MixUpConfig


class MixUp:
    """Mixes every image and its target row with those of another example of the batch."""

    def __init__(self, config: MixUpConfig, context: Context):
        self._exponent = 1 / config.alpha
        self._num_classes, self._together = context.num_classes, context.together
        self._generator = torch.Generator(context.device).manual_seed(context.seed)

    @hookimpl(wrapper=True)
    def transform_batch(self, batch: Batch) -> Generator[None, Batch, Batch]:
        """x_i <- lambda_i x_i + (1 - lambda_i) x_j and the same of the targets, lambda_i in [1/2, 1]."""
        batch = yield
        if not isinstance(batch.inputs, Tensor) or not batch.inputs.is_floating_point():
            raise UserError("mixup: mixes images or features, and what the network takes here cannot be mixed")
        n, device = batch.n, batch.inputs.device
        u = torch.rand(n, generator=self._generator, device=device, dtype=batch.inputs.dtype)
        partner = torch.rand(n, generator=self._generator, device=device).argsort()
        partner, share = batch.part(partner), batch.part(1 - u**self._exponent / 2)
        targets = target_rows(batch, self._num_classes)
        return attrs.evolve(
            batch,
            inputs=mixed(batch.inputs, self._whole(batch, batch.inputs).index_select(0, partner), share),
            targets=mixed(targets, self._whole(batch, targets).index_select(0, partner), share.to(targets.dtype)),
        )

    def _whole(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the rows of the whole batch, whose examples other processes may have."""
        return rows if batch.share is None else self._together.whole(rows, batch.share)

    def state_dict(self) -> dict[str, Tensor]:
        """The generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._generator.set_state(state["generator"])


def mixed(rows: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """Return share * rows + (1 - share) * others, (n, ...)."""
    return torch.lerp(others, rows, share.view(-1, *(1,) * (rows.dim() - 1)))
