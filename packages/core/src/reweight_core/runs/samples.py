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
        if any(len(column) != len(words["names"]) for column in columns.values()):
            raise ValueError("names and records differ in number")
        return Samples(columns, words["names"], words["classes"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{run}: has no weights of examples ({error}); they are written when a run is finished (reweight resume)"
        ) from error
