"""What every plugin in a loop of the user's own is told when it is built; what only a run has is refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from reweight_core.config.run_config import RunConfig
from reweight_core.data.given_batches import GivenExamples
from reweight_core.data.seeds import derived_seed
from reweight_core.engine.made import Made
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.outputs import Outputs, outputs_of
from reweight_core.errors import UserError
from reweight_core.machine.together import ALONE
from reweight_core.models.build import HEADS
from reweight_core.plugins.records import Context
from reweight_core.training.networks import seeded

_GIVE = {
    "train": "needs the training examples' labels: give labels=, a tensor (N,), or dataset=",
    "meta": "asks for the clean examples themselves, and a loop gives them in batches: use reweight train",
    "epochs": "needs to know how long training takes: give epochs=",
    "new_network": "trains a second network: give new_model=, a function without arguments that returns one",
}
"""Field of `Context` -> what to do where it is missing."""

_BATCH = 256
"""Examples in a batch of `predict`."""


class LoopContexts:
    """Makes the `Context` of each plugin in a loop.

    Args:
        config: the options.
        model: the network, on its device.
        optimizer: the loop's own; what plugins train beside the network is optimized likewise, as far as it is SGD,
            Adam or AdamW, and else by SGD.
        lr: its learning rate, a tensor without dimensions.
        num_classes: number of classes C.
        train_size: number of training examples N.
        train: gives the training examples, or None where nothing is known of them.
        epochs: how many the loop takes, or None.
        steps: number of steps in them, or None.
        new_model: returns a further network, or None.

    Attributes:
        made: what each plugin made, by the plugin's name.
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr: torch.Tensor,
        num_classes: int,
        train_size: int,
        train: Callable[[], GivenExamples] | None,
        epochs: int | None,
        steps: int | None,
        new_model: Callable[[], nn.Module] | None,
    ):
        self._config, self._model, self._lr, self._new_model = config, model, lr, new_model
        self._settings = _settings_of(optimizer)
        self._train = train
        self.made: dict[str, Made] = {}
        self._known: dict[str, Any] = {
            "num_classes": num_classes,
            "train_size": train_size,
            "weight_decay": self._settings.weight_decay,
            "device": lr.device,
            "dtype": next(p for p in model.parameters() if p.requires_grad).dtype,
            "model": model,
            "lr": lr,
            "steps": steps,
            "predict": self._predict,
            "best_network": lambda: None,
            "together": ALONE,
        }
        if epochs is not None:
            self._known["epochs"] = epochs

    def of(self, kind: str, name: str) -> Context:
        """Return the context of one plugin (arguments as `Contexts.of`)."""
        label, seed = f"{kind} '{name}'", derived_seed(self._config.seed, name)
        made = self.made[name] = Made(label, seed, self._build, self._settings, self._lr)
        known = self._known | {"seed": seed, "new_optimizer": made.new_optimizer, "by_example": made.by_example}
        if self._new_model is not None:
            known["new_network"] = made.new_network
        # as much of a context as there is
        return cast("Context", LoopContext(label, known, self._train))

    def close(self) -> None:
        """Let plugins make nothing more: they are built."""
        for made in self.made.values():
            made.close()

    def _build(self, seed: int) -> nn.Module:
        assert self._new_model is not None, "without it there is no new_network"
        with seeded(seed, self._lr.device):
            return self._new_model().to(self._lr.device).train()

    def _predict(self, examples: Any, model: nn.Module | None = None) -> Outputs:
        """See `Context.predict`."""
        return outputs_of(self._model if model is None else model, examples, _BATCH, 0, heads=HEADS)


class LoopContext:
    """A `Context` of which a loop knows a part.

    Args:
        whose: kind and name of the plugin.
        known: the fields that are known.
        train: gives the training examples when they are first asked for, or None.
    """

    def __init__(self, whose: str, known: dict[str, Any], train: Callable[[], GivenExamples] | None):
        vars(self).update(known)
        self._whose, self._train = whose, train

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "train" and self._train is not None:
            self.train = self._train()
            return self.train
        use = f"needs what only a run has ({name}): use reweight train, or another method"
        raise UserError(f"{self._whose} {_GIVE.get(name, use)}")


def _settings_of(optimizer: torch.optim.Optimizer) -> OptimizerSettings:
    kinds = {torch.optim.Adam: "adam", torch.optim.AdamW: "adamw"}
    group = optimizer.param_groups[0]
    return OptimizerSettings(
        name=kinds.get(type(optimizer), "sgd"),
        momentum=group.get("momentum", 0.0),
        weight_decay=group.get("weight_decay", 0.0),
    )
