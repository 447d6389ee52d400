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
    in Lightning's checkpoints. After training the reweighter is the callback's alone, so the module can be pickled.

    Args:
        method: name of a method.
        num_classes: number of classes C.
        settings: further arguments of `Reweighter`; ``train_size``, ``epochs`` and ``steps`` are Lightning's unless
            they are given.

    Attributes:
        reweighter: the `Reweighter`; None before training.
    """

    def __init__(self, method: str, *, num_classes: int, **settings: Any):
        self._method, self._settings = method, {"num_classes": num_classes} | settings
        self.reweighter: Reweighter | None = None
        self._restored: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the reweighter, now that model and optimizer are where they train."""
        if len(trainer.optimizers) != 1:
            raise UserError(f"Reweighting: needs a module of one optimizer, and this one has {len(trainer.optimizers)}")
        settings: dict[str, Any] = {}
        # of a stream Lightning says -1
        if 0 < trainer.estimated_stepping_batches < math.inf:
            settings["steps"] = int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            settings["epochs"] = trainer.max_epochs
        if "train_size" not in self._settings:
            settings["train_size"] = _train_size(trainer)
        self.reweighter = Reweighter(self._method, pl_module, trainer.optimizers[0], **settings | self._settings)
        if self._restored:
            self.reweighter.load_state_dict(self._restored)
        pl_module.reweighter = self.reweighter

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures of the epoch."""
        assert self.reweighter is not None, "it is made when training starts"
        figures = self.reweighter.epoch_ended()
        pl_module.log_dict({f"reweight_{name}": float(value) for name, value in figures.items() if value is not None})

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the reweighter from the module, which is pickled without it."""
        if "reweighter" in vars(pl_module) and pl_module.reweighter is self.reweighter:
            del pl_module.reweighter

    def state_dict(self) -> dict[str, Any]:
        """Return the reweighter's state, for checkpoints."""
        return {} if self.reweighter is None else self.reweighter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until training starts."""
        self._restored = state_dict


def _train_size(trainer: Trainer) -> int:
    try:
        return len(trainer.train_dataloader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        # batches without a dataset, several loaders, or a stream, which has no length
        raise UserError("Reweighting: how many training examples there are cannot be seen: give train_size=") from None
