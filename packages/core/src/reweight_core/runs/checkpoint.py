"""Checkpoints: safetensors and a manifest, written whole or not at all.

checkpoints/step-00012345/model.safetensors    the network
                          state.safetensors    optimizer, method, generators, per-example records
                          best.safetensors     the network as it was best on the validation set, if there is one
                          final.safetensors    what a plugin made of the network at the run's end, if one did
                          process-0.safetensors and so on: within an epoch, what each of several processes knows alone
                          manifest.json        sizes and SHA-256 of all; where training was, and what prediction needs
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reweight_core.data.features import Features
from reweight_core.engine.lookahead import Choice
from reweight_core.errors import UserError, reason
from reweight_core.files import flush, json_text, usual_permissions, write_json

FORMAT = 6

_NAME = re.compile(r"step-(\d{8})")
_PARTS = ("model", "state", "best", "final")
_FILE = re.compile(rf"({'|'.join(_PARTS)}|process-\d+)\.safetensors")


Kept = Literal["final", "best"]
"""A network that a checkpoint holds: what the run ends with, or the best on the validation set so far."""


@attrs.frozen
class Position:
    """Where a run is in its stages.

    Attributes:
        stage: number of the stage, from 0.
        epochs: epochs of it that are finished.
        steps: steps of it that are taken.
        stopped_early: epoch of the run after which ``--patience`` ended an earlier stage, or None.
    """

    stage: int = 0
    epochs: int = 0
    steps: int = 0
    stopped_early: int | None = None


@attrs.frozen
class Within:
    """How far a run is within an epoch.

    Attributes:
        steps: steps of it that are taken.
        seconds: time that they have taken.
    """

    steps: int = 0
    seconds: float = 0.0


@attrs.frozen
class Final:
    """The plugin that made the network that a run ends with.

    Attributes:
        kind: ``method``, ``component`` or ``loss``.
        name: its name.
    """

    kind: str
    name: str


@attrs.frozen
class Manifest:
    """What a checkpoint says of itself: where training was, and what a prediction needs.

    Attributes:
        run: what tells the run from all others (`reweight_core.runs.folder.RunRecord`).
        step: steps taken.
        epoch: epochs finished.
        stage: name of the stage of the last step.
        position: how far in it.
        seconds: time that training has taken so far.
        lookahead: the look-ahead of the steps to come.
        history: metrics of the finished epochs.
        model: name of the network (``--model``).
        head: its last layer (``--head``).
        input_shape: channels, height, width of an example.
        classes: class names, by index.
        mean: by channel; examples are normalised as (value - mean) / std.
        std: by channel.
        features: the columns, for data that are a table of features, or None.
        data_fingerprint: of the prepared data (`PreparedData.fingerprint`).
        held_out_test: digest of the test set, where it was taken out of the training set, or None.
        final: who made the network that the run ends with, if a plugin did at its end, or None.
        reader: name of the dataset, if its plugin reads new examples itself, or None.
        representation: of the dataset (`Dataset.representation`): what its inputs were made by, or None.
        best_by: the figure of `history` by which the best network is chosen (``--best-by``).
        ends_with: the network that the run ends with: the ``last`` one, or with ``--patience`` the ``best``.
        within: how far the run is within the next epoch, or None between two.
    """

    run: str
    step: int
    epoch: int
    stage: str
    position: Position
    seconds: float
    lookahead: Choice
    history: Sequence[Mapping[str, Any]]
    model: str
    head: Literal["linear", "cosine"]
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    features: Features | None
    data_fingerprint: str
    held_out_test: str | None
    final: Final | None = None
    reader: str | None = None
    representation: str | None = None
    best_by: str = "val_accuracy"
    ends_with: Literal["last", "best"] = "last"
    within: Within | None = None

    def origin(self, network: Kept) -> Mapping[str, Any]:
        """Return the metrics of the epoch that a network is from; it must be there.

        A network within an epoch is of the one after those that are finished, and its metrics are not known yet.
        """
        if not self.is_best(network):
            return {"epoch": self.epoch + 1, "step": self.step} if self.within else self.history[-1]
        best = best_epoch(self.history, self.best_by)
        assert best is not None, "kept only where there is a validation set"
        return best

    def is_best(self, network: Kept) -> bool:
        """Whether a network is the best on the validation set, or made of it."""
        return "best" in (network, self.ends_with)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Manifest:
        """Read what `as_json` returned, after JSON made lists of its tuples.

        Raises:
            KeyError, TypeError: if a field is missing, or there is one too many.
        """
        given = {**values, "lookahead": Choice(**values["lookahead"]), "position": Position(**values["position"])}
        given |= {name: tuple(values[name]) for name in ("input_shape", "classes", "mean", "std")}
        for name, kind in (("final", Final), ("within", Within)):
            if values[name] is not None:
                given[name] = kind(**values[name])
        if values["features"] is not None:
            given["features"] = Features(**{name: tuple(columns) for name, columns in values["features"].items()})
        return cls(**given)


@attrs.frozen(eq=False)
class Checkpoint:
    """A checkpoint.

    Attributes:
        model: state dict of the network that is evaluated and kept.
        state: everything else that training carries on: ``step.*`` (optimizer, generators, per-example records),
            ``plugin.NAME.*``, ``network.*`` where the trained network is not the kept one, ``initial.*`` where a later
            stage begins with the initial network, and ``epoch.order`` where a plugin chose that of the epoch.
        manifest: what it says of itself.
        best: state dict of the network as it was best on the validation set, or None.
        final: state dict of the network that a plugin made at the run's end, or None.
        processes: within an epoch of several processes, what each knows alone; else nothing.
    """

    model: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    manifest: Manifest
    best: Mapping[str, Tensor] | None = None
    final: Mapping[str, Tensor] | None = None
    processes: Sequence[Mapping[str, Tensor]] = ()

    def parts(self) -> dict[str, Mapping[str, Tensor]]:
        """Return what it keeps, by the names of its files without their ending."""
        named = {name: getattr(self, name) for name in _PARTS}
        of_processes = {f"process-{rank}": tensors for rank, tensors in enumerate(self.processes)}
        return {name: tensors for name, tensors in named.items() if tensors is not None} | of_processes


def best_epoch(history: Sequence[Mapping[str, Any]], by: str) -> Mapping[str, Any] | None:
    """Return the metrics of the epoch whose figure `by` is largest, the first of equals; None where none has it."""
    validated = [metrics for metrics in history if metrics[by] is not None]
    return max(validated, key=lambda metrics: metrics[by]) if validated else None


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint below `folder`; return its path.

    Args:
        folder: where the run's are.
        checkpoint: what to write.
        keep: how many stay: the newest, and at least one before it in case the newest is damaged.
    """
    final = folder / f"step-{checkpoint.manifest.step:08d}"
    partial = folder / f".{final.name}.partial"
    for begun in folder.glob(".step-*.partial"):
        # by a process that was killed
        shutil.rmtree(begun, ignore_errors=True)
    partial.mkdir(parents=True)
    files = {}
    for part, tensors in checkpoint.parts().items():
        name = f"{part}.safetensors"
        # shared tensors and views are stored once each: safetensors refuses aliases
        copies = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        with usual_permissions(partial / name):
            save_file(copies, partial / name)
        flush(partial / name)
        files[name] = {"bytes": (partial / name).stat().st_size, "sha256": _sha256(partial / name)}
    content = {"format": FORMAT, "files": files, "manifest": checkpoint.manifest.as_json()}
    write_json(partial / "manifest.json", content | {"sha256": _digest(content)})
    replaced = folder / f".{final.name}.replaced"
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    partial.rename(final)
    flush(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def remove_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps than this: a run that goes on from it takes them again."""
    for path in _complete(folder):
        if int(path.name.removeprefix(".").removeprefix("step-").removesuffix(".replaced")) > step:
            shutil.rmtree(path)


def exists(folder: Path) -> bool:
    """Whether there is any checkpoint below `folder`, damaged or not."""
    return bool(_complete(folder))


def load_latest(folder: Path, run: str | None = None) -> Checkpoint:
    """Read the newest checkpoint below `folder` that is whole; a warning says where that is not the newest.

    Args:
        folder: where a run's are.
        run: what tells the run from all others, if it must be its own.

    Raises:
        UserError: if there is none, or if every one is damaged.
    """
    found = _complete(folder)
    if not found:
        raise UserError(f"{folder}: no checkpoint here; train first, or give another run's folder")
    problems = []
    for path in reversed(found):
        try:
            checkpoint = read(path)
            if run is not None and checkpoint.manifest.run != run:
                raise ValueError("is of another run")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            problems.append(f"{path.name}: {_in_a_line(error)}")
        else:
            if problems:
                told = "; ".join(problems)
                warnings.warn(f"{folder}: a checkpoint is damaged ({told}); {path.name} is used", stacklevel=2)
            return checkpoint
    raise UserError(f"{folder}: no checkpoint is whole ({'; '.join(problems)})")


def _in_a_line(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(error.filename).name} is missing"
    return reason(error) if isinstance(error, KeyError | TypeError | AttributeError) else str(error)


def read(path: Path) -> Checkpoint:
    """Read one checkpoint from its folder.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError: if it is damaged.
    """
    text = (path / "manifest.json").read_text(encoding="utf-8")
    content = dict(json.loads(text))
    # the text too: 1e-05 and 1E-05 are one number
    if json_text(content) != text or content.pop("sha256") != _digest(content):
        raise ValueError("manifest.json differs from its checksum")
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']} is not {FORMAT}")
    for name, file in content["files"].items():
        if _FILE.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no file of a checkpoint")
        if _sha256(path / name) != file["sha256"]:
            raise ValueError(f"{name} differs from its checksum")
    parts = {name.removesuffix(".safetensors"): load_file(path / name) for name in content["files"]}
    processes = [parts.pop(name) for name in sorted(parts, key=_rank) if name not in _PARTS]
    return Checkpoint(**parts, processes=processes, manifest=Manifest.from_json(content["manifest"]))


def _rank(name: str) -> int:
    """Return the number of a process from the name of its part; -1 for another."""
    return int(name.removeprefix("process-")) if name.startswith("process-") else -1


def _complete(folder: Path) -> list[Path]:
    """List the checkpoints that were written whole, oldest first."""
    found = {path.name: path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)}
    for path in folder.glob(".step-*.replaced"):
        # whoever was stopped while replacing it may not have come to the new one
        name = path.name.removeprefix(".").removesuffix(".replaced")
        if _NAME.fullmatch(name):
            found.setdefault(name, path)
    return [found[name] for name in sorted(found)]


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
