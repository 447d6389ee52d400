"""The run that is audited: its options, its data as it trained on them, and what its network says of these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn

from reweight_core import (
    Dataset,
    Examples,
    PreparedData,
    RunConfig,
    Samples,
    Split,
    UserError,
    load,
    load_data,
    read_config,
    read_samples,
    read_table,
    training_set,
    usable_cpus,
)

TABLES = "csv"
"""The dataset that reads tables, by its name for ``--data``."""

BATCH_SIZE = 250
"""Examples in one batch; it changes the speed, not the result."""


@attrs.frozen(eq=False)
class AuditedRun:
    """A finished run with its data.

    Attributes:
        folder: where it is.
        config: its options.
        data: as they were drawn.
        trained_on: the same with what was trained on beside the training set: planted and trusted examples.
        samples: what the run knew of each training example.
    """

    folder: Path
    config: RunConfig
    data: PreparedData
    trained_on: PreparedData
    samples: Samples

    @classmethod
    def read(cls, folder: Path) -> AuditedRun:
        """Read a run and its data.

        Raises:
            UserError: if it is not finished, or its data are not there any more, or are others.
        """
        config = attrs.evolve(read_config(folder).config, out=folder)
        samples = read_samples(folder)
        try:
            data = load_data(config)
        except UserError as error:
            raise UserError(f"{folder}: the data of the run cannot be read: {error}") from error
        if data.fingerprint != _fingerprint(folder):
            raise UserError(f"{folder}: the data are not those that the run was trained on (their fingerprint differs)")
        trained_on = training_set(config, data)
        if not np.array_equal(trained_on.train.labels, samples.columns["observed"]):
            raise UserError(f"{folder}: its samples.safetensors is that of another run")
        return cls(folder, config, data, trained_on, samples)

    @property
    def planted(self) -> np.ndarray:
        """Which training examples were planted, bool (N,)."""
        planted = self.trained_on.planted
        return np.zeros(len(self.trained_on.train), dtype=bool) if planted is None else planted

    @property
    def trusted(self) -> np.ndarray:
        """Which training examples are trusted ones, bool (N,)."""
        trusted = self.trained_on.trusted
        return np.zeros(len(self.trained_on.train), dtype=bool) if trusted is None else trusted

    def image_files(self) -> list[str]:
        """Return the file of each training example, relative to the folder of the data.

        Raises:
            UserError: if the examples are no image files.
        """
        root, names = getattr(self.config.data_options, "data_root", None), list(self.samples.names)
        if root is not None and self.config.data == TABLES:
            rows = read_table(Path(root) / "train.csv").rows
            if "file" in rows[0]:
                of_train = [rows[identity]["file"] for identity in self.data.ids]
                # what was planted or is trusted is nobody's to correct
                return of_train + names[len(of_train) :]
        if root is None or not (Path(root) / names[0]).is_file():
            raise UserError(f"{self.folder}: its examples are no image files; use --csv")
        return names

    def summary(self) -> dict[str, Any]:
        """Return the figures of the run.

        Raises:
            UserError: if they cannot be read.
        """
        try:
            found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{self.folder}: summary.json cannot be read ({error})") from error
        return found

    def logits(self) -> np.ndarray:
        """Return what the network that the run ended with says of each training example, float32 (N, C)."""
        network = load(self.folder, self.config.device).network
        return logits_of(network, self.trained_on.train, self.data.dataset, self.config)


def _fingerprint(folder: Path) -> str:
    try:
        found: str = json.loads((folder / "config.json").read_text(encoding="utf-8"))["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}: config.json says nothing of the run's data ({error})") from error
    return found


@torch.no_grad()
def logits_of(network: nn.Module, split: Split, dataset: Dataset, config: RunConfig) -> np.ndarray:
    """Return the logits of a network in eval mode, float32 (N, C).

    Args:
        network: the network.
        split: what it is to predict.
        dataset: whose mean and standard deviation its examples have.
        config: the options of its run.
    """
    network.eval()
    parameter = next(network.parameters())
    examples = Examples(split, dataset, parameter.device, parameter.dtype, "none")
    workers = usable_cpus() if config.workers is None else config.workers
    found = [network(batch.inputs) for batch in examples.in_order(BATCH_SIZE, workers)]
    return torch.cat(found).float().cpu().numpy()
