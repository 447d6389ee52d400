"""Where a run is, and everything that it carries from one epoch to the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import Tensor

from reweight_core.config.resolve import test_share
from reweight_core.data.prepare import digest_of
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.state import part_of, prefixed
from reweight_core.errors import UserError
from reweight_core.runs.checkpoint import Checkpoint, Manifest
from reweight_core.training.build import Parts


class TrainingState:
    """The state of a run, which its checkpoints hold.

    Args:
        parts: what is trained.

    Attributes:
        epochs_done: epochs finished.
        steps_done: steps taken.
        history: metrics of the finished epochs.
    """

    def __init__(self, parts: Parts):
        self.parts = parts
        self.epochs_done = self.steps_done = 0
        self.history: list[dict[str, Any]] = []
        self._lookahead = parts.lookahead
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time that the run has taken, that of earlier parts included."""
        return time.perf_counter() - self._started

    @property
    def lookahead(self) -> Choice:
        """The look-ahead of the steps to come."""
        return self._lookahead

    @lookahead.setter
    def lookahead(self, choice: Choice) -> None:
        self._lookahead, self.parts.step.strategy = choice, choice.strategy

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors of training: the network, what the step carries, and the plugins' state."""
        return (
            prefixed("network", self.parts.model.state_dict())
            | prefixed("step", self.parts.step.state_dict())
            | prefixed("plugin", self.parts.hooks.state_dict())
        )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.parts.model.load_state_dict(part_of(state, "network"))
        self.parts.step.load_state_dict(part_of(state, "step"))
        self.parts.hooks.load_state_dict(part_of(state, "plugin"))

    def checkpoint(self, stage: str) -> Checkpoint:
        """Return what is to be kept after an epoch of the stage of this name."""
        config, data = self.parts.config, self.parts.data
        dataset, kept = data.dataset, self.parts.hooks.evaluation_model(self.parts.model)
        state = self.state_dict()
        if kept is self.parts.model:
            # the checkpoint's own file has it
            for name in prefixed("network", kept.state_dict()):
                del state[name]
        manifest = Manifest(
            step=self.steps_done,
            epoch=self.epochs_done,
            stage=stage,
            seconds=self.seconds,
            lookahead=self.lookahead,
            history=self.history,
            model=config.model,
            input_shape=dataset.input_shape,
            classes=dataset.classes,
            mean=dataset.mean,
            std=dataset.std,
            features=dataset.features,
            data_fingerprint=data.fingerprint,
            held_out_test=self._held_out_test,
        )
        return Checkpoint(kept.state_dict(), state, manifest)

    @cached_property
    def _held_out_test(self) -> str | None:
        test = self.parts.data.test
        return digest_of(test) if test is not None and test_share(self.parts.config) else None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was written.

        Raises:
            UserError: if it is not one of such a run.
        """
        manifest = checkpoint.manifest
        # where the kept network is another one than the trained, the trained one is in the state
        state = {**prefixed("network", checkpoint.model), **checkpoint.state}
        try:
            self.load_state_dict(state)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"the checkpoint of epoch {manifest.epoch} does not fit this run ({error})") from error
        self.lookahead = manifest.lookahead
        self.epochs_done, self.steps_done = manifest.epoch, manifest.step
        self.history = [dict(metrics) for metrics in manifest.history]
        self._started = time.perf_counter() - manifest.seconds
        self.parts.step.health.start_after(self.steps_done)
