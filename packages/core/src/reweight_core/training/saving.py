"""When a run is saved while it trains, and that it ends, saved, where a signal asks it to."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import torch
from torch import nn

from reweight_core.config.interval import interval
from reweight_core.errors import InterruptedRun, UserError
from reweight_core.machine.interruption import Interruption
from reweight_core.runs import checkpoint
from reweight_core.runs.checkpoint import Final, Within
from reweight_core.training.state import Epoch, TrainingState

LOOK_EVERY = 1.0
"""Seconds after which several processes agree again on whether to save: more often, it would cost."""


class Saving:
    """Saves a run when it is time, and ends it after a signal.

    Args:
        state: the run's.
        run: its folder.
        identity: what tells it from all others.
        held_out_test: digest of the test set, where it was taken out of the training set.
        asked: whether it is asked to end.
    """

    def __init__(self, state: TrainingState, run: Path, identity: str, held_out_test: str | None, asked: Interruption):
        self._state, self._run, self._identity, self._held_out_test = state, run, identity, held_out_test
        self._asked, self._interval = asked, interval(state.parts.config.checkpoint_every)
        self._saved_at, self._saved_step = time.monotonic(), state.steps_done
        self._looked_at, self._look_again, self._looked_step = self._saved_at, state.steps_done + 1, state.steps_done

    def after_step(self, epoch: Epoch, taken: Within) -> None:
        """Save within an epoch, if it is time.

        Args:
            epoch: the epoch.
            taken: how far the run is in it.

        Raises:
            InterruptedRun: if the run is asked to end; it is saved then.
        """
        ends, due = self._agreed()
        if ends is not None or due:
            self.save(taken, epoch)
        if ends is not None:
            raise self._interrupted(ends)

    def after_epoch(self, must: bool) -> None:
        """Save between two epochs, if it is time, or if it `must` be; and end as `after_step`."""
        state, together, every = self._state, self._state.parts.together, self._interval
        of_epochs = every is not None and every.unit == "epoch" and state.epochs_done % every.number == 0
        due = self._is_due() or of_epochs
        due, ends = together.same(due), self._signal_of_any()
        ends = None if state.is_over else ends
        if must or due or ends is not None:
            self.save()
        if ends is not None:
            raise self._interrupted(ends)

    def save(
        self,
        within: Within | None = None,
        epoch: Epoch | None = None,
        final: tuple[nn.Module, Final] | None = None,
    ) -> None:
        """Save the run as it is.

        Args:
            within: how far it is in an epoch, or None between two.
            epoch: this epoch.
            final: the network that a plugin made at the run's end, and which plugin, or None.

        Raises:
            UserError: if something was not finite.
        """
        state, parts, together = self._state, self._state.parts, self._state.parts.together
        self.check()
        known = state.of_process if within is not None else {}
        own = {name: tensor.clone() for name, tensor in known.items()}
        processes = []
        if own:
            for rank in range(together.size):
                tensors = together.of_process(rank, own)
                if together.is_first:
                    processes.append({name: tensor.cpu() for name, tensor in tensors.items()})
            # a network that is tested within an epoch, or goes on in other processes, is that of all
            parts.bring_together()
        if together.is_first:
            order = None if epoch is None else epoch.chosen
            kept = state.checkpoint(self._identity, self._held_out_test, final, within, order, processes)
            checkpoint.save(self._run / "checkpoints", kept, parts.config.keep)
        for name, tensor in own.items():
            known[name].copy_(tensor)
        # a process that ends would take with it the one that still writes
        together.same(None)
        self._saved_at, self._saved_step = time.monotonic(), state.steps_done

    def check(self) -> None:
        """Raise `UserError` if something was not finite, with what is kept of the run; this waits for the device."""
        parts = self._state.parts
        try:
            parts.step.health.check(parts.hooks.implementers, parts.together)
        except UserError as error:
            if parts.config.on_nonfinite == "skip":
                # it has changed nothing, and is counted
                parts.step.health.forget()
                warnings.warn(f"{error}; such steps are skipped", stacklevel=2)
                return
            kept = checkpoint.exists(self._run / "checkpoints")
            of_step = f"the checkpoint of step {self._saved_step}, before it, is in {self._run}"
            raise UserError(f"{error}; {of_step if kept else f'no checkpoint of {self._run} is before it'}") from error

    def _agreed(self) -> tuple[int | None, bool]:
        """Return the signal that the run is to end by, or None, and whether it is time to save: the same in all."""
        state, together = self._state, self._state.parts.together
        if together.size == 1:
            return self._asked.signal, self._is_due()
        if state.steps_done < self._look_again:
            # all count steps alike
            return None, self._is_due() if self._interval is not None and self._interval.unit == "step" else False
        taken = state.steps_done - self._looked_step
        ends, due = self._signal_of_any(), self._is_due()
        now = time.monotonic()
        # a GPU that is behind makes steps look short
        steps = min(round(LOOK_EVERY * taken / max(now - self._looked_at, 1e-4)), 2 * taken)
        self._looked_at, self._looked_step = now, state.steps_done
        due, steps = together.same((due, max(1, steps)))
        self._look_again = state.steps_done + steps
        return ends, due

    def _signal_of_any(self) -> int | None:
        """Return the signal that came to any process, the same in all; None if there was none."""
        device = self._state.parts.device
        return int(self._state.parts.together.greatest(torch.tensor(self._asked.signal or 0, device=device))) or None

    def _is_due(self) -> bool:
        every = self._interval
        if every is None or every.unit == "epoch":
            return False
        if every.unit == "step":
            return self._state.steps_done - self._saved_step >= every.number
        return time.monotonic() - self._saved_at >= 60 * every.number

    def _interrupted(self, signal: int) -> InterruptedRun:
        return InterruptedRun(
            signal, f"saved after step {self._state.steps_done}: reweight resume {self._run} goes on from there"
        )
