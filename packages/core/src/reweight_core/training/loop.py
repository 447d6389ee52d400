"""The training loop: everything is checked first, then stages of epochs of steps, and a folder that keeps it all."""

from __future__ import annotations

import shutil
import signal
import time
import uuid
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from reweight_core.config.load_data import load_data
from reweight_core.config.resolve import as_values
from reweight_core.config.run_config import RunConfig
from reweight_core.data.prepare import PreparedData
from reweight_core.errors import DivergedError, UserError
from reweight_core.files import locked, write_json
from reweight_core.machine.interruption import interruption
from reweight_core.machine.precision import products
from reweight_core.machine.process_group import joined
from reweight_core.machine.together import Together
from reweight_core.runs import folder
from reweight_core.runs.checkpoint import Within
from reweight_core.training.auto import choose_lookahead, choose_precision
from reweight_core.training.build import Parts, begin, build_observers, build_parts, refuse_gpu_options
from reweight_core.training.diagnosis import Diagnosis, Setting
from reweight_core.training.final import final_network
from reweight_core.training.held_out import OF_AN_EPOCH, HeldOut
from reweight_core.training.machine_errors import told_to_the_user
from reweight_core.training.metrics import means, purity, summary_of, weight_figures
from reweight_core.training.saving import Saving
from reweight_core.training.state import Epoch, TrainingState


@attrs.frozen(eq=False)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: where it lies.
        summary: what summary.json holds.
        model: the network that the run ends with, in eval mode: the trained one, with ``--patience`` as it was best, or
            what a plugin makes of it.
    """

    folder: Path
    summary: dict[str, Any]
    model: nn.Module


def train(config: RunConfig, observers: Sequence[object] = (), data: PreparedData | None = None) -> FinishedRun:
    """Run one training from beginning to end.

    Args:
        config: what `reweight_core.configure` returned.
        observers: objects with hooks of an observer, beside those of ``--observe``.
        data: what `reweight_core.load_data` gave for this configuration, if it is at hand; else they are loaded.

    Raises:
        UserError: for anything the user can mend; before training starts wherever it can be known then.
        DivergedError: if the run was ended early because it has diverged (``--stop-when``).
    """
    # what can be known before the data are read is checked before
    refuse_gpu_options(config)
    with joined(config.processes, config.device, config.sync_batchnorm) as together:
        if together.is_first:
            folder.refuse_taken(config.out)
        return train_together(config, observers, data, together)


def train_together(
    config: RunConfig, observers: Sequence[object], data: PreparedData | None, together: Together
) -> FinishedRun:
    """Train as one of the processes of a run (arguments and errors as `train`)."""
    with products(config.precision):
        with told_to_the_user():
            listeners = build_observers(config) if together.is_first else {}
            data = loaded(config, together) if data is None else data
            parts = build_parts(config, data, observers, listeners=listeners, together=together)
            held_out = HeldOut.of(config, data, parts.device)
            run = together.same(folder.create(config) if together.is_first else Path())
        with told_to_the_user(run), locked(run, str(run)) if together.is_first else nullcontext():
            return train_parts(parts, held_out, run)


def loaded(config: RunConfig, together: Together) -> PreparedData:
    """Load a run's data: in process 0 first, which may have to fetch them, then in the others.

    Raises:
        UserError: if they cannot be loaded, or the processes do not have the same.
    """
    data = load_data(config) if together.is_first else None
    fingerprint = together.same(None if data is None else data.fingerprint)
    data = load_data(config) if data is None else data
    if data.fingerprint != fingerprint:
        raise UserError(f"process {together.rank}: its data are not those of process 0 (their fingerprint differs)")
    return data


def train_parts(parts: Parts, held_out: HeldOut, run: Path, begun: bool = False) -> FinishedRun:
    """Train in all stages and write the run to its folder, which must exist.

    Args:
        parts: what is trained.
        held_out: what it is tested on.
        run: the folder.
        begun: whether there was a run in it before; it is not removed then if training cannot begin.
    """
    state = TrainingState(parts)
    size = begin(parts)
    precision = parts.config.precision
    if precision == "auto":
        precision = choose_precision(parts.step, size, state.stage) if parts.device.type == "cuda" else "fp32"
    _choose_lookahead(state, size)
    parameters = sum(parameter.numel() for parameter in parts.model.parameters())
    chosen = {"lookahead": attrs.asdict(parts.step.lookahead), "precision": precision, "parameters": parameters}
    identity = parts.together.same(uuid.uuid4().hex)
    if parts.together.is_first:
        folder.write_config(run, parts.config, parts.data, parts.device, chosen | {"run": identity})
    return train_to_the_end(state, held_out, run, identity, begun)


def train_to_the_end(
    state: TrainingState, held_out: HeldOut, run: Path, identity: str, begun: bool = True
) -> FinishedRun:
    """Train what is left of a run, after the steps that its state has seen, and write it to its folder.

    Args:
        state: the run's.
        held_out: what it is tested on.
        run: its folder.
        identity: what tells it from all others.
        begun: whether there was a run in the folder before.
    """
    listeners = state.parts.hooks.listeners
    try:
        listeners.begin_run(folder=run, config=as_values(state.parts.config), epochs_done=state.epochs_done)
        begun = True
        # a run that is never saved ends at once
        with interruption(heeded=state.parts.config.checkpoint_every != "never") as asked:
            saving = Saving(state, run, identity, held_out.test_digest, asked)
            finished = _train_what_is_left(state, held_out, run, saving)
        listeners.finish_run(summary=finished.summary)
    except BaseException as error:
        # what ended the run matters more than what goes wrong at closing
        listeners.end_run(error=error)
        if isinstance(error, DivergedError):
            # raised in all: the others wait until process 0 has told its observers
            state.parts.together.same(None)
        if not begun and state.parts.together.is_first:
            # nothing is lost with it, and left here it would bar a new run from its place
            shutil.rmtree(run, ignore_errors=True)
        raise
    for problem in listeners.end_run(error=None):
        warnings.warn(f"{problem}; the run is finished all the same", stacklevel=2)
    if asked.signal is not None:
        # it came too late for this run, and means whatever would come next
        signal.raise_signal(asked.signal)
    return finished


def _train_what_is_left(state: TrainingState, held_out: HeldOut, run: Path, saving: Saving) -> FinishedRun:
    parts, together = state.parts, state.parts.together
    state.start_clock()
    parts.model.train()
    diagnosis = Diagnosis(Setting.of(parts))
    for earlier in state.history:
        diagnosis.add(earlier)
    problems = diagnosis.problems
    while not state.is_over:
        if parts.config.stop_when in problems:
            why = problems[parts.config.stop_when]
            raise DivergedError(
                f"{why}; the run was ended and is kept in {run} (a new run with --stop-when never goes on)"
            )
        if state.stage_is_over:
            state.begin_next_stage()
        epoch = state.next_epoch()
        metrics = train_epoch(state, epoch, saving)
        if metrics["skipped_steps"] == len(epoch.sizes):
            raise UserError(
                f"every step of epoch {state.epochs_done} was skipped, because something was infinite or not a number "
                "in each: look at the data, or lower --lr"
            )
        samples = parts.step.samples.tensors
        metrics |= parts.hooks.finish_epoch(state.epochs_done, samples, taken={*metrics, *OF_AN_EPOCH})
        metrics |= purity(parts.hooks.trusted_examples(), parts.data)
        _choose_lookahead(state, epoch.sizes[0])
        evaluated = parts.hooks.evaluation_model(parts.model)
        if together.is_first:
            metrics |= held_out.figures(evaluated)
            metrics |= held_out.accuracies_of_further(parts.hooks.networks)
        # the figures of one process decide in all
        metrics = together.same(metrics)
        parts.best.note(evaluated, metrics)
        state.history.append(folder.finite(metrics))
        if together.is_first:
            folder.append_metrics(run, state.history[-1])
        for problem in diagnosis.add(state.history[-1]):
            # what ends the run is told then
            if state.is_over or problem.problem != parts.config.stop_when:
                warnings.warn(str(problem), stacklevel=2)
        ends = parts.config.stop_when in problems
        parts.hooks.listeners.observe_epoch(metrics, partial(folder.columns_of, parts.data, parts.step.samples))
        saving.check()
        saving.after_epoch(must=ends or state.is_over or state.stage_is_over)
    best = parts.best.copy() if state.ends_with == "best" else None
    kept = parts.hooks.evaluation_model(parts.model).eval() if best is None else best
    final = final_network(parts, kept)
    health = {"health": [attrs.asdict(problem) for problem in problems.values()]}
    summary: dict[str, Any] = {}
    if together.is_first:
        summary = summary_of(state) | health | held_out.report(kept, run)
        if final is not None:
            summary |= held_out.report(final[0], run, "final_")
        folder.write_samples(run, parts.data, parts.step.samples)
    if final is not None:
        saving.save(final=final)
    if together.is_first:
        write_json(run / "summary.json", summary)
    return FinishedRun(run, together.same(summary), kept if final is None else final[0])


def train_epoch(state: TrainingState, epoch: Epoch, saving: Saving | None = None) -> dict[str, Any]:
    """Train one epoch of a stage, or what is left of it; return its metrics.

    Args:
        state: the run's.
        epoch: the epoch.
        saving: what saves the run within it, or None.
    """
    parts, stage, begun = state.parts, state.stage, epoch.begun
    started = time.perf_counter() - begun.seconds
    if not begun.steps:
        parts.runner.begin_epoch()
    factor, rate = parts.schedules[state.position.stage], 0.0
    expected = state.expected_steps(epoch)
    # the step before those that are left is fed once more, and not taken: --lookahead auto tries what was fed last
    first = max(0, begun.steps - 1)
    fed_steps = parts.feeder.epoch(state.epochs_done, stage.source, epoch.sizes, epoch.order, first)
    for index, fed in enumerate(fed_steps, first):
        rate = stage.lr * factor(state.epochs_of_stage(epoch, index))
        parts.step.lr.fill_(rate)
        parts.step.feed(fed)
        if index < begun.steps:
            continue
        looks_ahead = state.steps_done % parts.config.meta_every == 0
        parts.runner.run(fed.n, stage, looks_ahead, epoch=state.epochs_done)
        state.steps_done += 1
        parts.hooks.listeners.observe_step(done=state.steps_done, total=expected)
        if saving is not None and index + 1 < len(epoch.sizes):
            saving.after_step(epoch, Within(index + 1, time.perf_counter() - started))
    parts.bring_together()
    state.finish_epoch(epoch)
    # reading them waits for the device, so the time that follows is that of the finished steps
    of_steps = means(parts.step.sums)
    seconds = time.perf_counter() - started
    return {
        "stage": stage.name,
        "epoch": state.epochs_done,
        "step": state.steps_done,
        "lr": rate,
        "lookahead": parts.step.lookahead.name,
        "lookahead_length": parts.step.lookahead.length,
        "lookahead_error": parts.step.lookahead.error,
        **of_steps,
        **weight_figures(parts.step.samples, parts.data),
        "seconds": seconds,
        "seconds_per_step": seconds / len(epoch.sizes),
    }


def _choose_lookahead(state: TrainingState, size: int) -> None:
    """For ``auto``: choose by the batch of this size that was fed last."""
    step = state.parts.step
    if state.parts.config.lookahead == "auto" and step.lookahead.name in ("jvp", "fd"):
        step.lookahead = choose_lookahead(step, size, state.stage, state.epochs_done)
