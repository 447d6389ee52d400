"""Defaults of core's options that fit a user's own data, by what they are and how many."""

from __future__ import annotations

import math
from typing import Any, Literal

SMALL_SET = 5000
"""Images below which the network is small: on 750 it was no worse than ResNet-32, in a third of the time a step."""

SMALL_TABLE = 1500
"""Rows from which a perceptron is no worse than logistic regression even if 30 % of the labels are wrong."""


def fitting_defaults(kind: Literal["features", "images"], examples: int) -> dict[str, Any]:
    """Return defaults of core's options for so many training examples; the table is in docs/data.md."""
    if kind == "images":
        small = {"model": "resnet8"} if examples < SMALL_SET else {}
        return {**small, **_length(examples, 100, epochs=80, fewest=1000, most=80_000)}
    if examples < SMALL_TABLE:
        # this decay, a part of Adam's gradient, has scikit-learn's LogisticRegression (C = 1) as its optimum
        decay = float(f"{1 / examples:.3g}")
        network = {"model": "linear", "optimizer": "adam", "lr": 0.01, "weight_decay": decay}
        return {**network, "batch_size": 50, "steps": 1000}
    # the decay and the few epochs keep it from learning wrong labels by heart
    network = {"model": "mlp", "optimizer": "sgd", "lr": 0.05, "weight_decay": 0.02}
    return {**network, "batch_size": 100, **_length(examples, 100, epochs=20, fewest=300, most=20_000)}


def _length(examples: int, batch_size: int, epochs: int, fewest: int, most: int) -> dict[str, int]:
    """Return ``epochs``, or where these are too few or too many steps, ``steps``."""
    steps = epochs * math.ceil(examples / batch_size)
    return {"epochs": epochs} if fewest <= steps <= most else {"steps": min(max(steps, fewest), most)}
