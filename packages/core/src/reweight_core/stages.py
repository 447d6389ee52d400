"""The stages of a run: what is trained on, for how long, at which rate."""

from typing import Literal

import attrs


@attrs.frozen
class Stage:
    """One phase of training with a cosine schedule of its own.

    Attributes:
        name: label in ``metrics.jsonl``.
        epochs: number of epochs; an epoch has as many steps as the training set has batches, whatever the source.
        lr: learning rate at the stage's start.
        source: ``train`` for the training set with its observed labels, ``meta`` for the clean meta set.
    """

    name: str
    epochs: int
    lr: float
    source: Literal["train", "meta"] = "train"
