"""The validation and the test set of a run: nothing but the evaluation reads them."""

from __future__ import annotations

import attrs
import torch
from torch import nn

from reweight_core.config.run_config import RunConfig
from reweight_core.data.examples import Examples
from reweight_core.data.prepare import PreparedData
from reweight_core.machine.device import resolve_device, usable_cpus
from reweight_core.runs.evaluate import FROM_FILES, accuracy


@attrs.frozen(eq=False)
class HeldOut:
    """What a network is tested on after every epoch.

    Attributes:
        val: validation examples, or None.
        test: test examples, or None.
        workers: processes that read image files.
    """

    val: Examples | None
    test: Examples | None
    workers: int

    @classmethod
    def of(cls, config: RunConfig, data: PreparedData) -> HeldOut:
        """Take the held-out sets of a run to its device.

        Raises:
            UserError: if an image that is in a file cannot be read; it would otherwise be found after the first epoch.
        """
        device, dtype = resolve_device(config.device), torch.get_default_dtype()
        order = torch.channels_last if config.channels_last else torch.contiguous_format
        val, test = (
            None if split is None else Examples(split, data.dataset, device, dtype, "none", order)
            for split in (data.val, data.test)
        )
        held_out = cls(val, test, usable_cpus() if config.workers is None else config.workers)
        for examples in (val, test):
            if examples is not None and examples.files is not None:
                for _ in examples.in_order(FROM_FILES, held_out.workers):
                    pass
        return held_out

    def accuracies(self, model: nn.Module) -> dict[str, float | None]:
        """Return ``val_accuracy`` and ``test_accuracy`` of a network, None for a set that there is not."""
        return {
            "val_accuracy": None if self.val is None else accuracy(model, self.val, self.workers),
            "test_accuracy": None if self.test is None else accuracy(model, self.test, self.workers),
        }
