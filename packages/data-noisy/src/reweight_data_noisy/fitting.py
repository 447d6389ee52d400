"""Defaults of a user's own data, by what they are and how many: looked up before they are read."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from reweight_data_noisy.options import CsvOptions, FolderOptions

SMALL_FOLDER = 5000
"""Images below which the network is small: on 750 it was no worse than ResNet-32, in a third of the time a step."""

SMALL_TABLE = 1500
"""Rows from which a perceptron is no worse than logistic regression even if 30 % of the labels are wrong."""


def fitting(kind: Literal["features", "images"], examples: int) -> dict[str, Any]:
    """Return defaults of core's options for so many training examples; the table is in docs/data.md."""
    if kind == "images":
        small = {"model": "resnet8"} if examples < SMALL_FOLDER else {}
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


def fitting_folder(config: FolderOptions) -> Mapping[str, Any]:
    """Return what fits the files below ROOT/train; nothing if it cannot be listed, which `load` tells."""
    try:
        with os.scandir(config.data_root / "train" if config.data_root else "") as classes:
            examples = sum(len(os.listdir(entry)) for entry in classes if entry.is_dir())
    except OSError:
        return {}
    return fitting("images", examples) if examples else {}


def fitting_csv(config: CsvOptions) -> Mapping[str, Any]:
    """Return what fits the rows of ROOT/train.csv; nothing if it cannot be read, which `load` tells."""
    try:
        with open((config.data_root or Path()) / "train.csv", newline="", encoding="utf-8-sig") as file:
            columns = [name.strip() for name in next(csv.reader(file), [])]
            # a line is a row, unless a value goes over several
            examples = sum(1 for line in file if line.strip())
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return fitting("images" if "file" in columns else "features", examples) if examples else {}
