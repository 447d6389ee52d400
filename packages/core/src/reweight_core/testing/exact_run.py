"""A method in double precision on a small network, to be compared step by step with a transcription of its paper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reweight_core.data.batch import Source
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Fed
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.made import Made
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.outputs import Outputs, outputs_of
from reweight_core.engine.stage import Stage
from reweight_core.engine.training_step import TrainingStep
from reweight_core.machine.together import ALONE
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import Context

CLASSES, SIZE, META_SIZE = 4, 30, 6
MOMENTUM = 0.9
STEPS = (
    (range(0, 10), 0.25),
    (range(10, 20), 0.25),
    (range(20, 28), 0.125),
    (range(5, 17), 0.0625),
    (range(0, 30, 3), 0.0625),
)
"""Positions of the examples, and rate (exact in every number type), of each of some steps."""


class ConvNet(nn.Module):
    """Two convolutions with BatchNorm and a linear layer: images (n, 3, 5, 5) to logits (n, 4)."""

    def __init__(self, logit_scale: float = 1.0):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv2, self.norm2 = nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, CLASSES)
        self.logit_scale = logit_scale

    def features(self, x: Tensor) -> Tensor:
        """Return what goes into the last layer, (n, 6)."""
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.logit_scale * self.head(self.features(x))
        return logits


def make_network(logit_scale: float = 1.0, seed: int = 0) -> ConvNet:
    """Return the network with the same weights every time, in train mode and double precision."""
    torch.manual_seed(seed)
    return ConvNet(logit_scale).double().train()


def make_splits(train_seed: int = 2) -> tuple[Split, Split]:
    """Return random training and meta images with balanced labels."""

    def split(size: int, seed: int) -> Split:
        images = np.random.RandomState(seed).randint(256, size=(size, 3, 5, 5)).astype(np.uint8)
        return Split(images, np.arange(size) % CLASSES)

    return split(SIZE, train_seed), split(META_SIZE, 3)


def make_examples(split: Split) -> Examples:
    """Return a split as a step sees it, normalised and not augmented."""
    dataset = Dataset(train=split, test=None, classes=tuple("abcd"), mean=(127.0,) * 3, std=(60.0,) * 3)
    return Examples(split, dataset, torch.device("cpu"), torch.float64)


def batch(split: Split, ids: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Return the normalised images and the labels at some positions, without any code of the step."""
    images = torch.from_numpy(np.asarray(split.images)[list(ids)]).double()
    return (images - 127) / 60, torch.from_numpy(split.labels[list(ids)])


def make_context(**changes: Any) -> Context:
    """Return what a method is built with, some of it changed."""
    model, (train, meta) = make_network(), make_splits()
    settings: dict[str, Any] = {
        "num_classes": CLASSES,
        "train_size": SIZE,
        "seed": 10,
        "weight_decay": 0.01,
        "device": torch.device("cpu"),
        "dtype": torch.float64,
        "model": model,
        "train": make_examples(train),
        "meta": make_examples(meta),
        "batch_size": 10,
        "lr": torch.zeros((), dtype=torch.float64),
        "epochs": 9,
        "steps": 27,
        "best_network": lambda: None,
        "together": ALONE,
    }
    settings |= changes
    optimizer = OptimizerSettings(momentum=MOMENTUM, weight_decay=settings["weight_decay"])
    made = Made("method 'method'", settings["seed"], lambda seed: make_network(seed=seed), optimizer, settings["lr"])

    def predict(examples: Examples, model: nn.Module | None = None) -> Outputs:
        return outputs_of(model or settings["model"], examples, size=SIZE, workers=0)

    makers = {"new_network": made.new_network, "new_optimizer": made.new_optimizer, "predict": predict}
    makers["by_example"] = made.by_example
    return Context(**makers | settings)


class Watcher:
    """Keeps the steps, and what the hooks gave in each."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.weights: list[Tensor] = []
        self.gradients: list[Tensor] = []

    @hookimpl(wrapper=True)
    def generate_weights(self, step: Any) -> Any:
        """Keep the step and its weights."""
        weights = yield
        self.steps.append(step)
        self.weights.append(weights.clone())
        return weights

    @hookimpl(wrapper=True)
    def manipulate_gradient(self, step: Any, weights: Tensor) -> Any:
        """Keep D'."""
        D_prime = yield
        self.gradients.append(D_prime.clone())
        return D_prime


class ExactRun:
    """Steps of a method on `ConvNet` with SGD.

    Args:
        method: the object with the method's hooks.
        strategy: how it looks ahead.
        logit_scale: factor of the logits; a large one makes the network certain.
        train_seed: seed of the training images.
        weight_decay: of the optimizer; the method must have been built with the same.
        lr: tensor of the learning rate; that of the method's context where the method made something that follows it.

    Attributes:
        model: the network.
        method: as given.
        train: training examples.
        meta: clean examples.
        hooks: the method's hooks.
        watcher: what they gave.
        step: the step itself.
    """

    def __init__(
        self,
        method: object,
        strategy: str = "jvp",
        logit_scale: float = 1.0,
        train_seed: int = 2,
        weight_decay: float = 0.01,
        lr: Tensor | None = None,
    ):
        self.model, self.method, self.watcher = make_network(logit_scale), method, Watcher()
        self.train, self.meta = map(make_examples, make_splits(train_seed))
        self.hooks = MethodHooks(method, "method", [self.watcher])
        self.step = TrainingStep(
            self.model,
            self.hooks,
            Choice(strategy),
            self.train,
            self.meta,
            settings=OptimizerSettings(momentum=MOMENTUM, weight_decay=weight_decay),
            seed=0,
            lr=lr,
        )

    def take(self, ids: Iterable[int], lr: float, source: Source = "train") -> Tensor:
        """Take a step with the examples at some positions and the whole meta set; return weights, (n,) or (n, C)."""
        ids = torch.tensor(list(ids))
        self.step.lr.fill_(lr)
        self.step.feed(Fed(ids, torch.arange(META_SIZE)))
        self.step.run(len(ids), Stage(source, 1, 0.0, source=source))
        return self.watcher.weights[-1]
