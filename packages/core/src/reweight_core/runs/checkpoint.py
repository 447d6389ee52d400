"""Checkpoints: safetensors and a manifest, written whole or not at all.

checkpoints/step-00012345/model.safetensors    the network
                          state.safetensors    optimizer, method, generators, per-example records
                          manifest.json        sizes and SHA-256 of both, and what prediction needs
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reweight_core.errors import UserError
from reweight_core.files import flush, write_json

FORMAT = 1

KEEP = 2
"""How many checkpoints of a run stay on disk: the newest, and one before it in case the newest is damaged."""

_NAME = re.compile(r"step-(\d{8})")
_FILES = ("model.safetensors", "state.safetensors")


@attrs.frozen
class Checkpoint:
    """A checkpoint that was read and verified.

    Attributes:
        model: state dict of the network.
        state: everything else that training carries on.
        manifest: position (stage, epoch, step) and what prediction needs.
    """

    model: dict[str, Tensor]
    state: dict[str, Tensor]
    manifest: dict[str, Any]


def save(
    folder: Path,
    step: int,
    model: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    manifest: Mapping[str, Any],
) -> Path:
    """Write a checkpoint below `folder`, then remove the oldest beyond `KEEP`; return its path."""
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    files = {}
    for name, tensors in zip(_FILES, (model, state), strict=True):
        # shared tensors and views are stored once each: safetensors refuses aliases
        save_file(
            {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()},
            partial / name,
        )
        flush(partial / name)
        files[name] = {"bytes": (partial / name).stat().st_size, "sha256": _sha256(partial / name)}
    content = {"format": FORMAT, "step": step, **manifest, "files": files}
    write_json(partial / "manifest.json", content | {"sha256": _digest(content)})
    replaced = folder / f".{final.name}.replaced"
    if final.exists():
        final.rename(replaced)
    partial.rename(final)
    flush(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    for old in _complete(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def load_latest(folder: Path) -> Checkpoint:
    """Read the newest checkpoint below `folder` that is whole.

    Raises:
        UserError: if there is none, or if every one is damaged.
    """
    found = _complete(folder)
    if not found:
        raise UserError(f"{folder}: no checkpoint here; train first, or give another run's folder")
    problems = []
    for path in reversed(found):
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            problems.append(f"{path.name}: {error}")
    raise UserError(f"{folder}: no checkpoint is whole ({'; '.join(problems)})")


def _read(path: Path) -> Checkpoint:
    manifest = dict(json.loads((path / "manifest.json").read_text(encoding="utf-8")))
    if manifest.pop("sha256") != _digest(manifest):
        raise ValueError("manifest.json differs from its checksum")
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']} is not {FORMAT}")
    for name in _FILES:
        if _sha256(path / name) != manifest["files"][name]["sha256"]:
            raise ValueError(f"{name} differs from its checksum")
    model, state = (load_file(path / name) for name in _FILES)
    return Checkpoint(model, state, manifest)


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
