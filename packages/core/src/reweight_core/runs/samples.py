"""What a finished run knew of each training example, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from reweight_core.errors import UserError


@attrs.frozen(eq=False)
class Samples:
    """What a finished run knew of each training example.

    Attributes:
        columns: by name, (N,) each; those of docs/runs.md.
        names: of the examples, (N,).
        classes: class names, by index.
    """

    columns: Mapping[str, np.ndarray]
    names: Sequence[str]
    classes: Sequence[str]


def read_samples(run: Path) -> Samples:
    """Read samples.safetensors and samples.json of a run.

    Raises:
        UserError: if the run is not finished, or they are damaged.
    """
    try:
        columns = load_file(run / "samples.safetensors")
        words = json.loads((run / "samples.json").read_text(encoding="utf-8"))
        for what in ("names", "classes"):
            if not isinstance(words[what], list) or not all(isinstance(word, str) for word in words[what]):
                raise ValueError(f"{what} are no list of texts")
        _check(columns, len(words["names"]), len(words["classes"]))
        return Samples(columns, words["names"], words["classes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise UserError(
            f"{run}: has no weights of examples ({error}); they are written when a run is finished (reweight resume)"
        ) from error


def _check(columns: Mapping[str, np.ndarray], examples: int, classes: int) -> None:
    """Raise `ValueError` if columns cannot be those of so many examples and classes."""
    kinds = {"id": "i", "observed": "i", "true": "i", "visits": "i", "planted": "b", "trusted": "b"}
    for name in ("id", "observed", "true", "visits", "last_weight", "mean_weight", "mean_loss", "mean_margin"):
        if name not in columns:
            raise ValueError(f"there is no {name}")
    for name, column in columns.items():
        if column.shape != (examples,):
            raise ValueError("names and records differ in number")
        if column.dtype.kind not in kinds.get(name, "if"):
            raise ValueError(f"{name} is of type {column.dtype}")
    for name, lowest in (("observed", 0), ("true", -1)):
        if examples and not lowest <= columns[name].min() <= columns[name].max() < classes:
            raise ValueError(f"{name} has what is no class")
