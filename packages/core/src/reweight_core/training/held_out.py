"""The validation and the test set of a run: nothing but the evaluation reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from reweight_core.config.resolve import test_share
from reweight_core.config.run_config import RunConfig
from reweight_core.data.dataset import digest_of
from reweight_core.data.prepare import PreparedData
from reweight_core.engine.network import Network
from reweight_core.runs.evaluate import HeldOutSet
from reweight_core.runs.folder import write_confusion
from reweight_core.runs.judgement import Judgement, figures_of

_FIGURES = ("accuracy", "balanced_accuracy")
OF_AN_EPOCH = tuple(f"{part}_{figure}" for figure in _FIGURES for part in ("test", "val"))
"""What the figures of a network are called in ``metrics.jsonl``."""


@attrs.frozen(eq=False)
class HeldOut:
    """What a network is tested on after every epoch.

    Attributes:
        val: validation examples, or None.
        test: test examples, or None.
        test_digest: digest of the test set, where it was taken out of the training set, or None.
        classes: class names, by index.
    """

    val: HeldOutSet | None
    test: HeldOutSet | None
    test_digest: str | None
    classes: tuple[str, ...]

    @classmethod
    def of(cls, config: RunConfig, data: PreparedData, device: torch.device) -> HeldOut:
        """Take the held-out sets of a run to its device.

        Raises:
            UserError: if an image that is in a file cannot be read; it would otherwise be found after the first epoch.
        """
        val, test = (
            None if split is None else HeldOutSet.of(split, data.dataset, config, device)
            for split in (data.val, data.test)
        )
        for held_out in (val, test):
            if held_out is not None:
                held_out.try_reading()
        digest = digest_of(data.test) if data.test and test_share(config) else None
        return cls(val, test, digest, data.dataset.classes)

    def judge(self, model: nn.Module) -> dict[str, Judgement | None]:
        """Judge a network on both sets, ``test`` and ``val``; None for a set that there is not."""
        sets = {"test": self.test, "val": self.val}
        return {part: None if held_out is None else held_out.judge(model) for part, held_out in sets.items()}

    def figures(self, model: nn.Module) -> dict[str, float | None]:
        """Return `OF_AN_EPOCH` of a network, None for a set that there is not."""
        judged = self.judge(model)
        return {
            f"{part}_{figure}": None if of_set is None else getattr(of_set, figure)
            for figure in _FIGURES
            for part, of_set in judged.items()
        }

    def accuracies_of_further(self, networks: Mapping[str, Network]) -> dict[str, float | None]:
        """Return the accuracies of further networks by name, as ``NAME_val_accuracy`` and ``NAME_test_accuracy``."""
        return {
            f"{name}_{part}_accuracy": None if judged is None else judged.accuracy
            for name, network in networks.items()
            for part, judged in self.judge(network.model).items()
        }

    def report(self, model: nn.Module, run: Path, prefix: str = "") -> dict[str, Any]:
        """Judge a network at the end of its run: write its confusion matrices, and return all other figures.

        Args:
            model: the network.
            run: the run's folder.
            prefix: what the names of figures and files begin with.
        """
        figures: dict[str, Any] = {}
        of_classes: dict[str, Any] = {}
        for part, judged in self.judge(model).items():
            figures |= figures_of(f"{prefix}{part}", judged)
            of_classes[f"{prefix}{part}_classes"] = None if judged is None else judged.by_class(self.classes)
            if judged is not None:
                write_confusion(run / f"{prefix}{part}_confusion.csv", judged.confusion, self.classes)
        return figures | of_classes
