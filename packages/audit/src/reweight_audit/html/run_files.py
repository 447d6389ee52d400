"""What the run's own files say: learning curves, results, warnings and options."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reweight_core import RunConfig, UserError, known_options, reason

CURVES = ("train_loss", "train_accuracy", "val_accuracy", "test_accuracy")

RESULTS = {
    "test_accuracy": "Accuracy on the test set",
    "val_accuracy": "Accuracy on the validation set",
    "noise_auroc": "AUROC of the weights as a detector of wrong labels",
    "epochs": "Epochs",
    "seconds": "Seconds of training",
}
"""Figures of ``summary.json`` that are shown -> what they are called."""


def run_content(run: Path) -> dict[str, Any]:
    """Return what is shown of a run, as JSON values.

    Raises:
        UserError: if one of its files is missing or damaged.
    """
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        epochs = [json.loads(line) for line in lines]
        return {
            "stages": [str(epoch["stage"]) for epoch in epochs],
            "curves": {name: [_number(epoch.get(name)) for epoch in epochs] for name in CURVES},
            "results": [
                [title, _number(summary[name])] for name, title in RESULTS.items() if summary.get(name) is not None
            ],
            "warnings": [str(entry["message"]) for entry in summary.get("health", [])],
            "options": _options(config["options"]),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"--html: config.json, summary.json or metrics.jsonl of {run} cannot be read ({reason(error)})"
        ) from error


def _number(value: Any) -> float | None:
    """Return a number; None for none, and for one that JSON lacks."""
    return None if value is None or not math.isfinite(value) else value


def _options(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the options, each with whether it has the value that it has when nobody gives it."""
    try:
        known = known_options(RunConfig, values)
    except UserError:
        # of a plugin that is not installed any more: then nothing is known to be a default
        known = {}
    return [
        {
            "flag": "--" + name.replace("_", "-"),
            "value": value if isinstance(value, str) else json.dumps(value),
            "default": name in known and _as_json(known[name].default) == value,
        }
        for name, value in values.items()
    ]


def _as_json(default: Any) -> Any:
    """Return a default as it would be in config.json."""
    if isinstance(default, Path):
        return str(default.absolute())
    return list(default) if isinstance(default, tuple) else default
