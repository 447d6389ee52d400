"""The folder of a run: what is written where, and read back.

config.json            every option, the versions of all plugins, what the data are
metrics.jsonl          one object an epoch
samples.safetensors    one entry a training example; samples.json has their names
test_confusion.csv     how often the examples of each class were predicted as each; val_confusion.csv likewise
checkpoints/           see `reweight_core.runs.checkpoint`
summary.json           the result
"""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from safetensors.numpy import save_file

from reweight_core.config.options import Owner, options_of
from reweight_core.config.resolve import as_values, configure, known_options, noise_parts, owner_of
from reweight_core.config.run_config import RunConfig
from reweight_core.data.prepare import PreparedData
from reweight_core.engine.sample_table import SampleTable
from reweight_core.errors import UserError
from reweight_core.files import write_json, write_text, written_whole
from reweight_core.plugins import registry
from reweight_core.plugins.records import NoOptions

FORMAT = 1


def refuse_taken(out: Path | None) -> None:
    """Raise `UserError` if the folder asked for exists and is not empty."""
    try:
        taken = out is not None and out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise UserError(f"--out {out}: {error}") from error
    if taken:
        raise UserError(f"--out {out}: exists and is not empty; give a new folder")


def create(config: RunConfig) -> Path:
    """Make the folder of a new run: the one asked for, or the next free one below runs/.

    Raises:
        UserError: if the folder asked for is taken (`refuse_taken`), or cannot be made.
    """
    refuse_taken(config.out)
    try:
        if config.out is not None:
            config.out.mkdir(parents=True, exist_ok=True)
            return config.out
        number = 1
        while True:
            folder = Path("runs") / f"{config.method}-{config.data}-{number}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise UserError(f"--out {config.out or 'runs'}: {error}") from error


@attrs.frozen
class Environment:
    """What a result depends on beside options and data.

    Attributes:
        plugins: distribution and version of every plugin that the run uses.
        versions: of Python and of the libraries.
        device: the GPU's name, or ``cpu``.
        threads: of torch on the CPU; sums of another number may differ in the last digits.
    """

    plugins: Mapping[str, str]
    versions: Mapping[str, str]
    device: str
    threads: int

    def check(self) -> None:
        """Raise `ValueError` if what was read cannot be one."""
        if type(self.threads) is not int or not 0 < self.threads < 2**31 or not isinstance(self.device, str):
            raise ValueError("device or threads cannot be read")
        for names in (self.plugins, self.versions):
            if not isinstance(names, dict) or not all(isinstance(version, str) for version in names.values()):
                raise ValueError("versions cannot be read")

    def differences(self, other: Environment) -> dict[str, list[str]]:
        """Say in words what is different in another environment, by field; fields that are the same are left out."""
        found = {}
        for field in attrs.fields(Environment):
            before, after = (
                value if isinstance(value, Mapping) else {field.name: value}
                for value in (getattr(self, field.name), getattr(other, field.name))
            )
            names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
            if names:
                found[field.name] = [f"{name}: {before.get(name)}, now {after.get(name)}" for name in names]
        return found


@attrs.frozen
class RunRecord:
    """What config.json says of a run.

    Attributes:
        config: the options.
        environment: what its result depends on beside options and data.
        precision: how products are rounded (``--precision``, decided).
        identity: what tells the run from all others: its checkpoints have it too.
        data_fingerprint: of the data that it began with.
        lost_observers: names of the observers that it had and that cannot be loaded any more; `config` is without.
    """

    config: RunConfig
    environment: Environment
    precision: str
    identity: str
    data_fingerprint: str
    lost_observers: tuple[str, ...] = ()


def environment_of(config: RunConfig, device: torch.device) -> Environment:
    """Return the environment that a run with these options has here."""
    plugins = {
        "method": registry.version_of("method", config.method),
        "loss": registry.version_of("loss", config.loss),
    }
    plugins |= {name: registry.version_of("component", name) for name in config.with_}
    noise = noise_parts(config)
    if noise is not None:
        plugins["noise"] = registry.version_of("noise", noise[0])
    # a network need not be a plugin's, nor need data that are handed over in Python
    for kind, name in (("data", config.data), ("model", config.model)):
        if name in registry.names(kind):
            plugins[kind] = registry.version_of(kind, name)
    versions = {name: metadata.version(name) for name in ("reweight-core", "torch", "torchvision", "numpy", "pluggy")}
    return Environment(
        plugins=plugins,
        versions={"python": platform.python_version(), **versions},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
    )


def write_config(
    folder: Path, config: RunConfig, data: PreparedData, device: torch.device, chosen: Mapping[str, Any]
) -> None:
    """Write config.json: the options, and everything around them that a result depends on.

    Args:
        folder: the run.
        config: the options.
        data: what is trained on.
        device: where.
        chosen: what the run begins with beside the options: ``lookahead``, ``precision`` and the network's number of
            ``parameters``, and the ``run``: what tells it from all others.
    """
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "options": as_values(config),
            **attrs.asdict(environment_of(config, device)),
            **chosen,
            "data": {
                "fingerprint": data.fingerprint,
                "train_size": len(data.train),
                "trusted_size": 0 if data.trusted is None else int(data.trusted.sum()),
                "meta_size": len(data.meta) if data.meta else 0,
                "val_size": len(data.val) if data.val else 0,
                "test_size": len(data.test) if data.test else 0,
                "classes": len(data.dataset.classes),
                "noise_rate": data.noise_rate,
            },
        },
    )


def read_config(folder: Path) -> RunRecord:
    """Read config.json back.

    Raises:
        UserError: if the folder holds no run, or one that the installed plugins cannot read.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is not {FORMAT}")
        values = dict(content["options"])
        environment = Environment(**{name: content[name] for name in ("plugins", "versions", "device", "threads")})
        environment.check()
        named = content["precision"], content["run"], content["data"]["fingerprint"]
        if content["precision"] not in ("fp32", "tf32", "bf16") or not all(isinstance(name, str) for name in named):
            raise ValueError("precision, run or fingerprint cannot be read")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}: not the folder of a run (config.json: {error})") from None
    try:
        # every value is in the file: what the preset was called then must not matter now
        preset = values.pop("preset", None)
        values, lost = _without_lost_observers(values)
        config = attrs.evolve(configure(RunConfig, **values), preset=preset)
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    return RunRecord(config, environment, *named, lost)


def note_changes(folder: Path, config: RunConfig, device: torch.device, step: int, changed: Sequence[str]) -> None:
    """Put what a run goes on with into config.json, and what of it is another than before (``--allow-changes``).

    Args:
        folder: the run.
        config: its options, of which the numbers of processes and of epochs may have changed.
        device: where it goes on.
        step: number of steps taken.
        changed: what differs, in words.
    """
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content["options"] |= {"processes": config.processes, "epochs": config.epochs}
    # their number stays what it was
    content |= {**attrs.asdict(environment_of(config, device)), "threads": content["threads"]}
    content["changes"] = [*content.get("changes", []), {"after_step": step, "changed": list(changed)}]
    write_json(folder / "config.json", content)


def _without_lost_observers(values: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take observers that cannot be loaded here, and the options of theirs, out of a run's; return these observers."""
    lost = []
    for name in values.get("observe", ()):
        try:
            options_of(owner_of("observer", name))
        except UserError:
            lost.append(name)
    kept = dict(values) | {"observe": [name for name in values.get("observe", ()) if name not in lost]}
    known = known_options(RunConfig, kept)
    prefixes = tuple(Owner.with_prefix(name, NoOptions, "observer").prefix for name in lost)
    return {n: value for n, value in kept.items() if n in known or not n.startswith(prefixes)}, tuple(lost)


def finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return an epoch's metrics as metrics.jsonl has them; JSON has no infinities, so such a value becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }


def append_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add one line to metrics.jsonl, of metrics that are `finite`."""
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(metrics, allow_nan=False) + "\n")


def write_metrics(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Replace metrics.jsonl by the lines of these epochs."""
    write_text(folder / "metrics.jsonl", "".join(json.dumps(metrics) + "\n" for metrics in history))


def write_confusion(path: Path, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Write a confusion matrix (C, C) as CSV: a row for each true class, a column for each predicted one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true class", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, confusion.tolist(), strict=True))
    write_text(path, text.getvalue())


def columns_of(data: PreparedData, table: SampleTable) -> dict[str, np.ndarray]:
    """Return everything known of each training example, as samples.safetensors has it: copies, (N,) each."""
    columns = {name: tensor.cpu().numpy() for name, tensor in table.tensors.items() if not name.endswith("_sum")}
    columns |= {
        "id": data.ids,
        "observed": data.train.labels,
        "true": data.true_labels,
        "mean_weight": table.mean("weight").cpu().numpy(),
        "mean_loss": table.mean("loss").cpu().numpy(),
        "mean_margin": table.mean("margin").cpu().numpy(),
    }
    if data.trusted is not None:
        columns["trusted"] = data.trusted
    if data.planted is not None:
        columns["planted"] = data.planted
    return {name: np.array(column) for name, column in columns.items()}


def write_samples(folder: Path, data: PreparedData, table: SampleTable) -> None:
    """Write samples.safetensors and samples.json: everything known of each training example."""
    with written_whole(folder / "samples.safetensors") as partial:
        save_file(columns_of(data, table), partial)
    names = data.train.names or [str(i) for i in data.ids]
    write_json(folder / "samples.json", {"classes": data.dataset.classes, "names": names})
