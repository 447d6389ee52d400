"""The validation and the test set of a run: nothing but the evaluation reads them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import nn

from reweight_core.config.resolve import test_share
from reweight_core.config.run_config import RunConfig
from reweight_core.data.prepare import PreparedData, digest_of
from reweight_core.engine.network import Network
from reweight_core.runs.evaluate import HeldOutSet

ACCURACIES = ("val_accuracy", "test_accuracy")
"""What the accuracies of a network are called in ``metrics.jsonl``."""


@attrs.frozen(eq=False)
class HeldOut:
    """What a network is tested on after every epoch.

    Attributes:
        val: validation examples, or None.
        test: test examples, or None.
        test_digest: digest of the test set, where it was taken out of the training set, or None.
    """

    val: HeldOutSet | None
    test: HeldOutSet | None
    test_digest: str | None

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
        return cls(val, test, digest_of(data.test) if data.test and test_share(config) else None)

    def accuracies(self, model: nn.Module) -> dict[str, float | None]:
        """Return ``val_accuracy`` and ``test_accuracy`` of a network, None for a set that there is not."""
        return {
            name: None if held_out is None else held_out.accuracy(model)
            for name, held_out in zip(ACCURACIES, (self.val, self.test), strict=True)
        }

    def accuracies_of_further(self, networks: Mapping[str, Network]) -> dict[str, float | None]:
        """Return the accuracies of further networks by name, as ``NAME_val_accuracy`` and ``NAME_test_accuracy``."""
        return {
            f"{name}_{figure}": value
            for name, network in networks.items()
            for figure, value in self.accuracies(network.model).items()
        }
