"""Checkpoints within an epoch of several processes, each of which knows something that the others do not."""

import signal

import pytest
import torch

from reweight_core.errors import InterruptedRun
from reweight_core.machine.interruption import Interruption
from reweight_core.machine.together import ALONE
from reweight_core.runs.checkpoint import read
from reweight_core.testing import tiny_parts
from reweight_core.testing.in_turns import InTurns
from reweight_core.training.build import begin
from reweight_core.training.loop import train_epoch
from reweight_core.training.saving import Saving
from reweight_core.training.state import TrainingState

RUNS = {
    "erm": {"method": "erm"},
    "gdw": {"method": "gdw", "loss": "elr", "with": ("relabel", "ema"), "relabel_warmup_epochs": 1},
    "fsr": {"method": "fsr", "dictionary_size": 16, "probe_size": 8, "warmup_epochs": 1},
    "co-teaching": {"method": "co-teaching"},
}
BETWEEN = 2
"""Steps between two checkpoints; an epoch has four."""


def parts_of(name, together):
    # an odd number of examples: records of other types do not begin at the same multiples of bytes
    options = {
        "model": "resnet20",
        "batch_size": 11,
        "epochs": 2,
        "classes": 5,
        "keep": 99,
        "checkpoint_every": f"{BETWEEN}steps",
    }
    return tiny_parts(**options | RUNS[name], together=together)


def to_the_end(state, saving=None):
    state.parts.model.train()
    while not state.is_over:
        if state.stage_is_over:
            state.begin_next_stage()
        metrics = train_epoch(state, state.next_epoch(), saving)
        state.parts.hooks.finish_epoch(state.epochs_done, state.parts.step.samples.tensors)
        untimed = {name: value for name, value in metrics.items() if "seconds" not in name}
        state.history.append(untimed | {"val_accuracy": None, "val_balanced_accuracy": None})
    return state.state_dict(), state.history


def resumed(name, folder, together):
    state = TrainingState(parts_of(name, together))
    state.restore(read(folder))
    return to_the_end(state)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "size"), [("erm", 1), *((name, 2) for name in RUNS)])
def test_processes_go_on_within_an_epoch_as_if_nothing_had_been(name, size, tmp_path):
    def whole(together):
        parts = parts_of(name, together)
        begin(parts)
        state = TrainingState(parts)
        return to_the_end(state, Saving(state, tmp_path, "", None, Interruption()))

    expected = InTurns(size).run(whole)
    first, *_, last = [f for f in sorted((tmp_path / "checkpoints").iterdir()) if read(f).manifest.within]
    for folder in (first, last):
        for found, one in zip(
            InTurns(size).run(lambda together, folder=folder: resumed(name, folder, together)), expected, strict=True
        ):
            assert found[0].keys() == one[0].keys()
            different = [tensor for tensor in one[0] if not torch.equal(found[0][tensor], one[0][tensor])]
            assert not different
            assert found[1] == one[1]


def test_a_signal_to_one_process_ends_all_saved(tmp_path):
    def interrupted(together):
        parts = parts_of("erm", together)
        begin(parts)
        state = TrainingState(parts)
        asked = Interruption(signal.SIGTERM if together.rank == 1 else None)
        with pytest.raises(InterruptedRun) as ended:
            to_the_end(state, Saving(state, tmp_path, "", None, asked))
        return ended.value.status

    assert InTurns(2).run(interrupted) == [143, 143]
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert read(saved).manifest.within.steps == 1


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_of_processes_goes_on_with_what_all_knew(size, tmp_path):
    def whole(together):
        parts = parts_of("erm", together)
        begin(parts)
        state = TrainingState(parts)
        return to_the_end(state, Saving(state, tmp_path, "", None, Interruption()))

    expected = InTurns(2).run(whole)[0]
    (first, *_) = sorted((tmp_path / "checkpoints").iterdir())
    assert read(first).manifest.within.steps == BETWEEN
    found = [resumed("erm", first, ALONE)] if size == 1 else InTurns(size).run(lambda t: resumed("erm", first, t))
    for state, history in found:
        # every example is visited as often, and every step counted once
        assert torch.equal(state["step.samples.visits"], expected[0]["step.samples.visits"])
        assert torch.equal(state["step.sums.steps"], expected[0]["step.sums.steps"])
        assert torch.equal(state["step.sums.examples"], expected[0]["step.sums.examples"])
        assert history[0]["train_loss"] == pytest.approx(expected[1][0]["train_loss"], rel=0.2)
