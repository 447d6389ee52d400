"""Where a run is, and everything that it carries from one epoch to the next."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from reweight_core.data.feeder import batch_sizes
from reweight_core.data.seeds import Stream, random_state
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.stage import Stage
from reweight_core.engine.state import part_of, prefixed
from reweight_core.errors import UserError, reason
from reweight_core.runs.checkpoint import Checkpoint, Final, Manifest, Position, Within
from reweight_core.runs.new_examples import reader_of
from reweight_core.training.build import Parts
from reweight_core.training.patience import is_in_vain, patient_stage
from reweight_core.training.stages import refuse_empty_epoch, source_size, usual_order


@attrs.frozen(eq=False)
class Epoch:
    """An epoch to come.

    Attributes:
        sizes: the sizes of its batches.
        full: their number if the stage's last step does not cut the epoch.
        order: positions of the examples in the stage's source, or None for the default order.
        chosen: the order, if a plugin chose it, or None.
        begun: how far the run is in it.
    """

    sizes: list[int]
    full: int
    order: np.ndarray | None
    chosen: np.ndarray | None = None
    begun: Within = attrs.field(factory=Within)


class TrainingState:
    """The state of a run, which its checkpoints hold.

    Args:
        parts: what is trained.

    Attributes:
        parts: as given.
        epochs_done: epochs finished.
        steps_done: steps taken.
        position: where it is in its stages.
        history: metrics of the finished epochs.
    """

    def __init__(self, parts: Parts):
        self.parts = parts
        self.epochs_done = self.steps_done = 0
        self.position = Position()
        self.history: list[dict[str, Any]] = []
        self._seconds_before, self._started = 0.0, time.perf_counter()
        self._restored: tuple[Within, np.ndarray | None] | None = None

    def start_clock(self) -> None:
        """Count the run's time from now on, beside that of its earlier parts."""
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time that training has taken, earlier parts of the run included."""
        return self._seconds_before + time.perf_counter() - self._started

    @property
    def stage(self) -> Stage:
        """The stage that the run is in."""
        return self.parts.stages[self.position.stage]

    @property
    def stage_is_over(self) -> bool:
        """Whether the stage has had all its epochs, or steps, or goes on in vain (``--patience``)."""
        return self._stage_is_whole or self._stage_is_in_vain

    @property
    def stopped_early(self) -> int | None:
        """The epoch after which ``--patience`` ended a stage, or None."""
        ends_now = self._stage_is_in_vain and not self._stage_is_whole
        return self.epochs_done if ends_now else self.position.stopped_early

    @property
    def ends_with(self) -> Literal["last", "best"]:
        """The network that the run ends with, unless a plugin makes another one of it."""
        return "best" if self.parts.config.patience else "last"

    @property
    def _stage_is_in_vain(self) -> bool:
        config, first = self.parts.config, len(self.history) - self.position.epochs
        may_end = self.position.stage == patient_stage(self.parts.stages)
        return may_end and is_in_vain(self.history[first:], config.best_by, config.patience)

    @property
    def _stage_is_whole(self) -> bool:
        if self.stage.steps is None:
            return self.position.epochs >= self.stage.epochs
        return self.position.steps >= self.stage.steps

    @property
    def is_over(self) -> bool:
        """Whether the run has had all its stages."""
        return self.position.stage == len(self.parts.stages) - 1 and self.stage_is_over

    def begin_next_stage(self) -> None:
        """Go on to the next stage: its network first, then its optimizer, then the plugins hear of it."""
        self.position = Position(self.position.stage + 1, stopped_early=self.stopped_early)
        parts, stage = self.parts, self.stage
        if stage.start != "continue":
            weights = parts.initial if stage.start == "initial" else parts.best.weights
            assert weights is not None, "kept where a stage needs it"
            parts.model.load_state_dict(weights)
            if parts.config.lookahead == "auto" and parts.step.lookahead.name == "fd":
                # its error was measured on another network
                parts.step.lookahead = Choice("jvp")
        if stage.fresh_optimizer:
            parts.step.forget_updates()
            for network in parts.hooks.networks.values():
                network.forget_updates()
        parts.hooks.begin_stage(stage)

    def next_epoch(self) -> Epoch:
        """Ask the plugins for the order of the next epoch, and cut it into batches; one that has begun goes on."""
        parts, stage, config = self.parts, self.stage, self.parts.config
        begun, chosen = self._restored or (Within(), None)
        if self._restored is None and stage.source != "meta":
            size = source_size(stage, parts.train, parts.meta)
            rng = random_state(config.seed, Stream.CHOSEN_ORDER, self.epochs_done)
            chosen = parts.together.same(parts.hooks.order_epoch(stage, self.epochs_done, size, rng))
            self._refuse_repeats(chosen)
        self._restored = None
        if chosen is None:
            order = usual_order(stage, config.seed, self.epochs_done)
            sizes = list(parts.batch_sizes[self.position.stage])
        else:
            order, sizes = chosen, batch_sizes(len(chosen), config.batch_size, parts.together.size)
            refuse_empty_epoch(stage.name, len(chosen), sizes, parts.together.size)
        left = len(sizes)
        if stage.steps is not None:
            left = min(left, stage.steps - self.position.steps)
        return Epoch(sizes[:left], len(sizes), order, chosen, begun)

    def _refuse_repeats(self, order: np.ndarray | None) -> None:
        """Refuse an order in which several processes would each know a part of an example's state."""
        together, hooks = self.parts.together, self.parts.hooks
        if together.size > 1 and order is not None and hooks.by_example and len(np.unique(order)) < len(order):
            raise UserError(
                f"--processes {together.size}: {hooks.implementers('order_epoch')} takes examples more than once in an "
                "epoch, and what the run learns of each cannot be brought together: train it in one process"
            )

    def epochs_of_stage(self, epoch: Epoch, index: int) -> float:
        """Return how many epochs of the stage are done when `index` steps of this one are, for its schedule.

        A stage in steps counts usual epochs, as its length does, whatever the epochs that plugins order.
        """
        if self.stage.steps is None:
            return self.position.epochs + index / epoch.full
        return (self.position.steps + index) / len(self.parts.batch_sizes[self.position.stage])

    def finish_epoch(self, epoch: Epoch) -> None:
        """Count a finished epoch, whose steps are counted already."""
        self.epochs_done += 1
        before = self.position
        self.position = attrs.evolve(before, epochs=before.epochs + 1, steps=before.steps + len(epoch.sizes))

    def expected_steps(self, epoch: Epoch) -> int:
        """Return how many steps the whole run has, if the epochs of the stage are like the one that begins now."""
        if self.stage.steps is None:
            of_stage = len(epoch.sizes) + (self.stage.epochs - self.position.epochs - 1) * epoch.full
        else:
            of_stage = self.stage.steps - self.position.steps
        later = range(self.position.stage + 1, len(self.parts.stages))
        return self.steps_done - epoch.begun.steps + of_stage + sum(map(self.parts.expected_steps, later))

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors of training: the network, what the step carries, and the plugins' state."""
        return prefixed("network", self.parts.model.state_dict()) | self._beside_the_network()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.parts.model.load_state_dict(part_of(state, "network"))
        self.parts.step.load_state_dict(part_of(state, "step"))
        self.parts.hooks.load_state_dict(part_of(state, "plugin"))
        initial = part_of(state, "initial")
        for name, tensor in (self.parts.initial or {}).items():
            tensor.copy_(initial[name])

    def _beside_the_network(self) -> dict[str, Tensor]:
        return (
            prefixed("step", self.parts.step.state_dict())
            | prefixed("plugin", self.parts.hooks.state_dict())
            | prefixed("initial", self.parts.initial or {})
        )

    @property
    def of_process(self) -> dict[str, Tensor]:
        """Within an epoch of several processes: what this one knows alone, by name; else nothing."""
        parts, step = self.parts, self.parts.step
        if parts.together.size == 1:
            return {}
        models = {"run": parts.model} | {name: network.model for name, network in parts.hooks.networks.items()}
        found = prefixed("samples", step.samples.of_process) | prefixed("sums", step.sums.tensors)
        for name, model in models.items():
            found |= prefixed(f"buffers.{name}", dict(model.named_buffers()))
        return found | {f"by_example.{place}": tensor for place, tensor in enumerate(parts.hooks.by_example)}

    def checkpoint(
        self,
        run: str = "",
        held_out_test: str | None = None,
        final: tuple[nn.Module, Final] | None = None,
        within: Within | None = None,
        order: np.ndarray | None = None,
        processes: Sequence[Mapping[str, Tensor]] = (),
    ) -> Checkpoint:
        """Return what is to be kept.

        Args:
            run: what tells the run from all others.
            held_out_test: digest of the test set, where it was taken out of the training set.
            final: the network that a plugin made at the run's end, and which plugin, or None.
            within: how far the run is in the next epoch, or None between two.
            order: that of this epoch, if a plugin chose it, or None.
            processes: within an epoch, what each of several processes knows alone (`of_process`).
        """
        config, data = self.parts.config, self.parts.data
        dataset, kept = data.dataset, self.parts.hooks.evaluation_model(self.parts.model)
        manifest = Manifest(
            run=run,
            step=self.steps_done,
            epoch=self.epochs_done,
            stage=self.stage.name,
            position=self.position,
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
            final=final and final[1],
            reader=reader_of(config.data),
            representation=dataset.representation,
            best_by=config.best_by,
            ends_with=self.ends_with,
            within=within,
        )
        # the checkpoint's own file has the kept network, which may be another than the trained one
        state = self._beside_the_network() if kept is self.parts.model else self.state_dict()
        if order is not None:
            state["epoch.order"] = torch.from_numpy(np.ascontiguousarray(order))
        best = self.parts.best.weights
        return Checkpoint(kept.state_dict(), state, manifest, best, final and final[0].state_dict(), processes)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was written.

        Raises:
            UserError: if it is not one of such a run.
        """
        manifest, order = checkpoint.manifest, checkpoint.state.get("epoch.order")
        trained = part_of(checkpoint.state, "network") or checkpoint.model
        try:
            self.load_state_dict({**checkpoint.state, **prefixed("network", trained)})
            if manifest.within is not None:
                self._restored = manifest.within, None if order is None else order.numpy()
                self._restore_of_process(checkpoint.processes)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint of step {manifest.step} does not fit this run ({reason(error)})"
            ) from error
        stages = self.parts.stages
        if manifest.position.stage >= len(stages) or stages[manifest.position.stage].name != manifest.stage:
            raise UserError(f"the checkpoint of step {manifest.step} is of a stage that the run has not now")
        self.epochs_done, self.steps_done = manifest.epoch, manifest.step
        self.position = manifest.position
        self.parts.best.restore(checkpoint.best, manifest.history)
        self.history = [dict(metrics) for metrics in manifest.history]
        self._seconds_before = manifest.seconds
        self.parts.step.lookahead = manifest.lookahead
        self.parts.step.health.start_after(self.steps_done)

    def _restore_of_process(self, processes: Sequence[Mapping[str, Tensor]]) -> None:
        """Within an epoch: give this process what it knew alone; with another number, process 0 knows what all did."""
        together = self.parts.together
        if len(processes) == together.size:
            for name, tensor in self.of_process.items():
                tensor.copy_(processes[together.rank][name])
        elif together.size > 1:
            self.parts.step.samples.begin_epoch()
            if not together.is_first:
                self.parts.step.sums.forget_totals()
