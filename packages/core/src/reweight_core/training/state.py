"""Where a run is, and everything that it carries from one epoch to the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reweight_core.engine.state import part_of, prefixed
from reweight_core.errors import UserError, reason
from reweight_core.runs.checkpoint import Checkpoint, Manifest
from reweight_core.training.build import Parts


class TrainingState:
    """The state of a run, which its checkpoints hold.

    Args:
        parts: what is trained.

    Attributes:
        parts: as given.
        epochs_done: epochs finished.
        steps_done: steps taken.
        history: metrics of the finished epochs.
    """

    def __init__(self, parts: Parts):
        self.parts = parts
        self.epochs_done = self.steps_done = 0
        self.history: list[dict[str, Any]] = []
        self._seconds_before, self._started = 0.0, time.perf_counter()

    def start_clock(self) -> None:
        """Count the run's time from now on, beside that of its earlier parts."""
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time that training has taken, earlier parts of the run included."""
        return self._seconds_before + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors of training: the network, what the step carries, and the plugins' state."""
        return prefixed("network", self.parts.model.state_dict()) | self._beside_the_network()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.parts.model.load_state_dict(part_of(state, "network"))
        self.parts.step.load_state_dict(part_of(state, "step"))
        self.parts.hooks.load_state_dict(part_of(state, "plugin"))

    def _beside_the_network(self) -> dict[str, Tensor]:
        return prefixed("step", self.parts.step.state_dict()) | prefixed("plugin", self.parts.hooks.state_dict())

    def checkpoint(self, stage: str, held_out_test: str | None = None) -> Checkpoint:
        """Return what is to be kept after an epoch.

        Args:
            stage: name of the stage.
            held_out_test: digest of the test set, where it was taken out of the training set.
        """
        config, data = self.parts.config, self.parts.data
        dataset, kept = data.dataset, self.parts.hooks.evaluation_model(self.parts.model)
        manifest = Manifest(
            step=self.steps_done,
            epoch=self.epochs_done,
            stage=stage,
            seconds=self.seconds,
            lookahead=self.parts.step.lookahead,
            history=self.history,
            model=config.model,
            head=config.head,
            input_shape=dataset.input_shape,
            classes=dataset.classes,
            mean=dataset.mean,
            std=dataset.std,
            features=dataset.features,
            data_fingerprint=data.fingerprint,
            held_out_test=held_out_test,
        )
        # the checkpoint's own file has the kept network, which may be another than the trained one
        state = self._beside_the_network() if kept is self.parts.model else self.state_dict()
        return Checkpoint(kept.state_dict(), state, manifest)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was written.

        Raises:
            UserError: if it is not one of such a run.
        """
        manifest = checkpoint.manifest
        trained = part_of(checkpoint.state, "network") or checkpoint.model
        try:
            self.load_state_dict({**checkpoint.state, **prefixed("network", trained)})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint of epoch {manifest.epoch} does not fit this run ({reason(error)})"
            ) from error
        self.epochs_done, self.steps_done = manifest.epoch, manifest.step
        self.history = [dict(metrics) for metrics in manifest.history]
        self._seconds_before = manifest.seconds
        self.parts.step.lookahead = manifest.lookahead
        self.parts.step.health.start_after(self.steps_done)
