"""The Trainer of transformers with learned weights; needs the extra ``transformers`` of reweight-core."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from reweight_core.errors import UserError
from reweight_core.integrations.kept_weights import KeptWeights
from reweight_core.plugins import registry
from reweight_core.training.reweighter import Reweighter

IDS = "reweight_ids"
"""Column of the training batches with the examples' positions."""

STATE = "reweighter.pt"
"""File with the reweighter's state in the Trainer's checkpoints."""


class ReweightTrainer(Trainer):
    """A Trainer whose loss is that of a `Reweighter`; for models that classify whole sequences.

    Its figures are logged after every epoch as ``reweight_NAME``. A run that is resumed goes on with the reweighter's
    state. What is evaluated, saved and there after training is what `Reweighter.evaluation_model` gives (``ema``).

    Args:
        arguments: those of the Trainer.
        method: name of a method.
        meta_dataset: clean examples like those of the training set, or None for a method that needs none.
        reweight: further arguments of `Reweighter`, options of the method included; a meta batch has as many examples
            as a training batch unless ``meta_batch_size`` is among them.
        keywords: those of the Trainer.

    Attributes:
        reweighter: the `Reweighter`; None before training.
    """

    train_dataset: Any

    def __init__(
        self,
        *arguments: Any,
        method: str,
        meta_dataset: Any = None,
        reweight: Mapping[str, Any] | None = None,
        **keywords: Any,
    ):
        super().__init__(*arguments, **keywords)
        looks_ahead = registry.find("method", method).looks_ahead != "no"
        if self.train_dataset is None or not hasattr(self.train_dataset, "__len__"):
            raise UserError("ReweightTrainer: train_dataset must be a dataset of known length, indexed by position")
        if looks_ahead and self.args.fp16:
            raise UserError("fp16=True: the look-ahead's gradients vanish in float16; use bf16=True")
        if self.compute_loss_func is not None:
            raise UserError(
                "compute_loss_func: ReweightTrainer has the loss of its Reweighter; give reweight={'loss': NAME}"
            )
        if self.args.label_smoothing_factor:
            raise UserError(
                f"label_smoothing_factor={self.args.label_smoothing_factor}: ReweightTrainer has the loss of its "
                "Reweighter; give reweight={'components': ['label-smoothing']}"
            )
        self.reweighter: Reweighter | None = None
        self.method, self.meta_dataset, self.reweight = method, meta_dataset, dict(reweight or {})
        if "num_classes" not in self.reweight:
            self.reweight["num_classes"] = getattr(getattr(self.model, "config", None), "num_labels", None)
        if self.reweight["num_classes"] is None:
            raise UserError(
                "ReweightTrainer: how many classes there are cannot be seen, because the model has no "
                "config.num_labels: give reweight={'num_classes': C}"
            )
        # the loss is the mean of a batch: the Trainer divides it by the number of batches that are accumulated
        self.model_accepts_loss_kwargs = False
        self._examples = self.train_dataset
        self.train_dataset = _Numbered(self._examples)
        self._resumed_from: str | None = None
        self._kept: KeptWeights | None = None
        self.add_callback(_Reweighting(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *arguments: Any, **keywords: Any) -> Any:
        """See `transformers.Trainer.train`."""
        folder = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if folder and not Path(folder, STATE).is_file():
            raise UserError(
                f"resume_from_checkpoint={str(folder)!r}: there is no {STATE} in it, so no ReweightTrainer wrote it; "
                "to begin with its network, load that as the model and train without resume_from_checkpoint"
            )
        self._resumed_from = folder or None
        return super().train(resume_from_checkpoint, *arguments, **keywords)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of the reweighter in training, the model's own in evaluation."""
        inputs = dict(inputs)
        ids = inputs.pop(IDS, None)
        # the training set may be evaluated too
        if ids is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        assert self.reweighter is not None, "it is made when training begins"
        if "labels" not in inputs:
            raise UserError("the training examples have no labels: give each a 'label' or 'labels', its class")
        return self.reweighter(inputs, inputs.pop("labels"), ids)

    def begin(self) -> None:
        """Make the reweighter, now that model and optimizer are as training takes them, or restore it."""
        collate = self._get_collator_with_removed_columns(self.data_collator)
        batch = self.args.per_device_train_batch_size
        epochs = None if self.args.max_steps > 0 else math.ceil(self.args.num_train_epochs)
        settings = {
            "train_size": len(self._examples),
            "meta": None if self.meta_dataset is None else _Collated(self.meta_dataset, collate),
            "dataset": _Collated(self._examples, collate),
            "epochs": epochs,
            "steps": self.state.max_steps * self.args.gradient_accumulation_steps,
            "seed": self.args.seed,
            "meta_batch_size": batch,
        }
        state = None
        if self._resumed_from is not None:
            state = torch.load(Path(self._resumed_from, STATE), weights_only=True)
            # the checkpoint's network is the one to evaluate
            if state["trained"]:
                self.model.load_state_dict(state["trained"])
        self.reweighter = Reweighter(self.method, self.model_wrapped, self.optimizer, **settings | self.reweight)
        if state is not None:
            self.reweighter.load_state_dict(state["reweighter"])
        self._kept = KeptWeights(self.accelerator.unwrap_model(self.model), self.reweighter.evaluation_model)

    def save_state(self, folder: Path) -> None:
        """Write what a checkpoint of the Trainer lacks."""
        assert self.reweighter is not None and self._kept is not None, "they are made when training begins"
        with self._kept.inside():
            trained = dict(self._kept.trained) if self._kept.are_in else {}
        torch.save({"reweighter": self.reweighter.state_dict(), "trained": trained}, folder / STATE)

    def end(self) -> None:
        """Leave the weights to keep in the network, unless those of the best checkpoint are in it."""
        assert self._kept is not None, "it is made when training begins"
        if not (self.args.load_best_model_at_end and self.state.best_model_checkpoint):
            self._kept.put_in()
        self._kept = None

    def _with_kept_weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self._kept is None else self._kept.inside()

    def evaluation_loop(self, *arguments: Any, **keywords: Any) -> Any:
        """See `transformers.Trainer.evaluation_loop`."""
        with self._with_kept_weights():
            return super().evaluation_loop(*arguments, **keywords)

    def save_model(self, *arguments: Any, **keywords: Any) -> None:
        """See `transformers.Trainer.save_model`."""
        with self._with_kept_weights():
            super().save_model(*arguments, **keywords)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if IDS not in self._signature_columns:
            self._signature_columns.append(IDS)


class _Reweighting(TrainerCallback):
    """Does what a reweighter does between steps."""

    def __init__(self, trainer: ReweightTrainer):
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Make it."""
        self._trainer.begin()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Log its figures."""
        assert self._trainer.reweighter is not None, "it is made when training begins"
        figures = self._trainer.reweighter.epoch_ended()
        self._trainer.log({f"reweight_{name}": value for name, value in figures.items() if value is not None})

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Keep its state beside the optimizer's."""
        self._trainer.save_state(Path(args.output_dir, f"checkpoint-{state.global_step}"))

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Leave the network as it is to be kept."""
        self._trainer.end()


class _Numbered(Dataset[dict[str, Any]]):
    """A dataset whose examples know their position."""

    def __init__(self, examples: Any):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {**self._examples[position], IDS: int(position)}


class _Collated:
    """A dataset with what makes batches of its examples."""

    def __init__(self, examples: Any, collate_fn: Callable[[list[Any]], Mapping[str, Tensor]]):
        self._examples, self.collate_fn = examples, collate_fn

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, position: int) -> Any:
        return self._examples[position]
