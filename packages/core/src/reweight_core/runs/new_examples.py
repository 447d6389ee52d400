"""New examples for a trained network, read by the plugin of the dataset that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from reweight_core.config.options import fill, options_of
from reweight_core.config.resolve import owner_of
from reweight_core.data.rows import FeatureRows, refuse_unusable
from reweight_core.errors import PluginError, UserError
from reweight_core.plugins import registry
from reweight_core.plugins.blame import blamed
from reweight_core.runs.checkpoint import Manifest


def reader_of(data: str) -> str | None:
    """Return the name of a dataset if its plugin reads new examples itself, else None."""
    has_reader = data in registry.names("data") and registry.find("data", data).read_new is not None
    return data if has_reader else None


def read_new(run: Path, manifest: Manifest, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read new examples as the plugin of a run's dataset does, with the run's options.

    Args:
        run: the run's folder.
        manifest: of its checkpoint.
        path: what to read.

    Returns:
        The examples, uint8, float32 or float64 (N, *shape), and their names.

    Raises:
        UserError: if there is nothing at the path, the plugin or the run's options are missing, it gives something
            else, the inputs are other ones (`refuse_other_inputs`), or features are not as many as the run's, not
            finite or far too large.
    """
    data, shape = manifest.reader, manifest.input_shape
    if data is None:
        raise UserError(f"{path}: the plugin of the run's dataset does not read new examples")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    try:
        reader, options = registry.find("data", data).read_new, _options_of(run, data)
    except UserError as error:
        raise UserError(f"{run}: new examples are read by the plugin of its dataset: {error}") from error
    if reader is None:
        raise UserError(f"{run}: data '{data}' reads no new examples any more: install the version of the run")
    with blamed(f"data '{data}'", "read_new", getattr(reader, "__module__", "")):
        found = reader(options, path)
    problem = _problem(found, shape)
    if problem:
        raise PluginError(f"data '{data}': read_new {problem}: report it to the plugin's author")
    examples, names, *representation = found
    refuse_other_inputs(run, manifest, representation[0] if representation else None)
    if examples.shape[1:] != shape:
        raise UserError(f"{path}: has {examples.shape[1]} features, but the run was trained on {shape[0]}")
    if shape[1:] == (1, 1):
        refuse_unusable(FeatureRows((examples[:, :, 0, 0],)), manifest.mean, manifest.std, str(path))
    return examples, tuple(names)


def refuse_other_inputs(run: Path, manifest: Manifest, representation: str | None) -> None:
    """Raise `UserError` if inputs are made by something else (`Dataset.representation`) than those of a run."""
    if representation != manifest.representation:
        before, now = (made_by or "the examples as they are" for made_by in (manifest.representation, representation))
        raise UserError(
            f"{run}: its network takes inputs made by {before}, and now they would be made by {now}: bring back what "
            "has changed, or train anew"
        )


def _options_of(run: Path, data: str) -> Any:
    """Return the dataset's options, as the run had them."""
    owner = owner_of("data", data)
    try:
        values = json.loads((run / "config.json").read_text(encoding="utf-8"))["options"]
        declared = [item.name for item in options_of(owner)]
        return fill(owner, {name: values[name] for name in declared if name in values})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"its options cannot be read (config.json: {error})") from error


def _problem(found: Any, shape: tuple[int, ...]) -> str:
    """Say what is wrong with the result of a reader, or nothing; how many features it has, users may have wrong."""
    if not isinstance(found, tuple) or len(found) not in (2, 3):
        return f"returned {type(found).__name__}, not a pair (examples, names)"
    examples, names, *representation = found
    if not all(isinstance(made_by, str | None) for made_by in representation):
        return f"returned {type(representation[0]).__name__} as its representation, which must be a text or None"
    wanted = f"uint8, float32 or float64 of shape (N, {', '.join(map(str, shape))})"
    if not isinstance(examples, np.ndarray):
        return f"returned examples of type {type(examples).__name__}; they must be {wanted}"
    fits = examples.shape[1:] == shape or (examples.ndim == 4 and examples.shape[2:] == shape[1:] == (1, 1))
    if examples.dtype not in (np.uint8, np.float32, np.float64) or not fits or not len(examples):
        return f"returned examples of {examples.dtype}, shape {examples.shape}; they must be {wanted}"
    if len(names) != len(examples) or not all(isinstance(name, str) for name in names):
        return f"must return a name for each of the {len(examples)} examples"
    return ""
