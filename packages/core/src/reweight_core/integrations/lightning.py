"""A callback of Lightning with learned weights; needs the extra ``lightning`` of reweight-core."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from reweight_core.errors import UserError
from reweight_core.integrations.kept_weights import KeptWeights
from reweight_core.training.reweighter import Reweighter

TRAINED = "reweight_trained"
"""Entry of a checkpoint with the weights that training goes on with, where its ``state_dict`` has others."""


class Reweighting(Callback):
    """Gives a module a `Reweighter` of its own as ``self.reweighter``, whose loss its ``training_step`` returns.

        def training_step(self, batch, batch_idx):
            inputs, labels, ids = batch
            return self.reweighter(inputs, labels, ids)

    The module's ``forward`` returns logits. Figures are logged after every epoch as ``reweight_NAME``, and the state is
    in Lightning's checkpoints. After training the reweighter is the callback's alone, so the module can be pickled.
    What is validated, in checkpoints and there after training is what `Reweighter.evaluation_model` gives (``ema``).

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
        self._kept: KeptWeights | None = None
        self._is_training = False
        self._restored: dict[str, Any] = {}
        self._trained: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an earlier training was restored from."""
        self._restored, self._trained = {}, None

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
        if self._trained is not None:
            pl_module.load_state_dict(self._trained)
        self.reweighter = Reweighter(self._method, pl_module, trainer.optimizers[0], **settings | self._settings)
        if self._restored:
            self.reweighter.load_state_dict(self._restored)
        self._kept = KeptWeights(pl_module, partial(_network_to_keep, pl_module, self.reweighter))
        with self._kept.inside():
            if self._kept.are_in and any(getattr(c, "save_weights_only", False) for c in trainer.checkpoint_callbacks):
                raise UserError(
                    "ModelCheckpoint(save_weights_only=True) would keep the weights that are trained and not those to "
                    "evaluate (ema): leave it out"
                )
        pl_module.reweighter = self.reweighter
        self._is_training = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the network that is kept."""
        if self._is_training:
            self._weights.put_in()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the one that is trained."""
        if self._is_training:
            self._weights.take_out()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the network as it is to be kept."""
        self._is_training = False
        self._weights.put_in()

    @property
    def _weights(self) -> KeptWeights:
        assert self._kept is not None, "they are made when training starts"
        return self._kept

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have the network that is kept in a checkpoint, and the trained one beside it."""
        if self._kept is None:
            return
        with self._kept.inside():
            if self._kept.are_in:
                kept = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
                checkpoint |= {"state_dict": kept, TRAINED: dict(self._kept.trained)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what training goes on with until it starts."""
        self._trained = checkpoint.get(TRAINED)

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


def _network_to_keep(module: LightningModule, reweighter: Reweighter) -> nn.Module:
    # the module is copied for it, and the reweighter cannot be
    inside = vars(module).pop("reweighter", None)
    network = reweighter.evaluation_model()
    if inside is not None:
        module.reweighter = inside
    return network


def _train_size(trainer: Trainer) -> int:
    try:
        return len(trainer.train_dataloader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        # batches without a dataset, several loaders, or a stream, which has no length
        raise UserError("Reweighting: how many training examples there are cannot be seen: give train_size=") from None
