"""A phase of training: what it trains on, how long, at which rates and from which network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    import numpy as np

    from reweight_core.data.batch import Source

Start = Literal["continue", "initial", "best"]
"""The network that a stage begins with: as it is, as the run began, or as it was best on the validation set."""


@attrs.frozen
class Stage:
    """One phase of training, with a learning-rate schedule of its own.

    Attributes:
        name: label in ``metrics.jsonl``.
        epochs: number of epochs, unless `steps` is given. One has as many steps as its source has batches; for
            ``meta``, as the training set.
        lr: learning rate at the stage's start.
        source: what it trains on. With ``both``, the meta set's examples follow the training set's: position N is the
            first of them, and `Batch.trusted` says which examples of a batch they are.
        steps: number of steps, in place of `epochs`; the last epoch is then shorter. With ``--steps`` the run's own
            stage has them: a stage made of it with another number of epochs sets them to None.
        schedule: factor of the rate by the epochs of the stage that are done, a fraction within an epoch; None for
            the run's own schedule, fitted to this stage.
        start: the network that it begins with, weights and running statistics.
        fresh_optimizer: whether it begins with an optimizer that remembers nothing (momentum).
        ids: positions in the training set, int64, if the stage is to go through these alone.
        plain: whether no plugin may change the batch, the loss or the weights: cross-entropy with weights of 1. Of the
            hooks in a step, only `manipulate_update` and `follow_update` are called.
            ``--patience`` ends the last stage early that is not plain.
    """

    name: str
    epochs: int
    lr: float
    source: Source = "train"
    steps: int | None = None
    schedule: Callable[[float], float] | None = None
    start: Start = "continue"
    fresh_optimizer: bool = False
    ids: np.ndarray | None = attrs.field(default=None, eq=False)
    plain: bool = False


TRAINING = Stage("train", 1, 0.0)
"""The stage of a step that is part of no run."""
