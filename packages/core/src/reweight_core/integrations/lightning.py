"""A callback of Lightning with learned weights; needs the extra ``lightning`` of reweight-core."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from reweight_core.errors import UserError
from reweight_core.training.reweighter import Reweighter


class Reweighting(Callback):
    """Gives a module a `Reweighter` of its own as ``self.reweighter``, whose loss its ``training_step`` returns.

        def training_step(self, batch, batch_idx):
            inputs, labels, ids = batch
            return self.reweighter(inputs, labels, ids)

    The module's ``forward`` returns logits. Figures are logged after every epoch as ``reweight_NAME``, and the state is
    in Lightning's checkpoints.

    Args:
        method: name of a method.
        num_classes: number of classes C.
        settings: further arguments of `Reweighter`; ``train_size``, ``epochs`` and ``steps`` are Lightning's unless
            they are given.
    """

    def __init__(self, method: str, *, num_classes: int, **settings: Any):
        self._method, self._settings = method, {"num_classes": num_classes} | settings
        self._reweighter: Reweighter | None = None
        self._restored: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the reweighter, now that model and optimizer are where they train."""
        if len(trainer.optimizers) != 1:
            raise UserError(f"Reweighting: needs a module of one optimizer, and this one has {len(trainer.optimizers)}")
        settings: dict[str, Any] = {}
        if math.isfinite(trainer.estimated_stepping_batches):
            settings["steps"] = int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            settings["epochs"] = trainer.max_epochs
        if "train_size" not in self._settings:
            settings["train_size"] = len(trainer.train_dataloader.dataset)
        self._reweighter = Reweighter(self._method, pl_module, trainer.optimizers[0], **settings | self._settings)
        if self._restored:
            self._reweighter.load_state_dict(self._restored)
        pl_module.reweighter = self._reweighter

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures of the epoch."""
        assert self._reweighter is not None, "it is made when training starts"
        figures = self._reweighter.epoch_ended()
        pl_module.log_dict({f"reweight_{name}": float(value) for name, value in figures.items() if value is not None})

    def state_dict(self) -> dict[str, Any]:
        """Return the reweighter's state, for checkpoints."""
        return {} if self._reweighter is None else self._reweighter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until training starts."""
        self._restored = state_dict
