"""Whole runs whose steps are recorded and replayed, against the same runs step by step."""

import gc
import weakref

import attrs
import pytest
import torch

from reweight_core.cli.main import main
from reweight_core.engine.cuda_graphs import RecordedSteps
from reweight_core.runs.checkpoint import load_latest
from reweight_core.testing import tiny_parts, train_in
from reweight_core.testing.recorder import CpuBackend


class StepByStep(CpuBackend):
    """Takes every step by itself, under the mode that recording needs."""

    def record(self, take):
        self.run(take)
        return lambda: self.run(take)


class Counting(CpuBackend):
    """Counts replays."""

    replays = 0

    def record(self, take):
        replay = super().record(take)

        def counted():
            self.replays += 1
            replay()

        return counted


RUNS = {
    "erm": {"method": "erm"},
    "random": {"method": "random"},
    "l2rw": {"method": "l2rw"},
    "l2rw by fd": {"method": "l2rw", "lookahead": "fd"},
    "mwnet, every other step": {"method": "mwnet", "meta_every": 2, "batch_size": 5},
    "gdw": {"method": "gdw"},
    "gdw, chosen each epoch": {"method": "gdw", "lookahead": "auto", "epochs": 2},
    "gdw in bf16 and little memory": {"method": "gdw", "precision": "bf16", "memory": "lean"},
    "gdw by adam, clipped": {"method": "gdw", "optimizer": "adam", "lr": 1e-3, "max_grad_norm": 1.0},
    "clean-only": {"method": "clean-only"},
    "fsr with everything": {
        "method": "fsr",
        "with": ("mixup", "relabel", "label-smoothing", "ema"),
        "dictionary_size": 8,
        "probe_size": 4,
        "warmup_epochs": 1,
        "relabel_warmup_epochs": 1,
        "schedule": "cyclic",
        "epochs": 3,
    },
}


def finished(tmp_path, name, backend, options):
    """Train in full; return everything that the last checkpoint holds, and the metrics that are no times."""
    options = {"lookahead": "double" if options["method"] not in ("fsr", "erm") else "auto", "epochs": 3} | options
    parts = tiny_parts(options.pop("method"), **options)
    parts = attrs.evolve(parts, runner=RecordedSteps(parts.step, backend, required=True))
    summary = train_in(tmp_path / name, parts).summary
    checkpoint = load_latest(tmp_path / name / "checkpoints")
    return checkpoint.model, checkpoint.state, summary["test_accuracy"]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_recorded_run_ends_where_the_same_run_step_by_step_does(tmp_path, name):
    backend = Counting()
    model, state, accuracy = finished(tmp_path, "recorded", backend, dict(RUNS[name]))
    other_model, other_state, other_accuracy = finished(tmp_path, "steps", StepByStep(), dict(RUNS[name]))
    assert backend.replays >= 2
    assert model.keys() == other_model.keys() and state.keys() == other_state.keys()
    for one, other in ((model, other_model), (state, other_state)):
        for key, tensor in one.items():
            assert torch.equal(tensor, other[key]), key
    assert accuracy == other_accuracy


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--graph", "on"], "--graph on: steps are recorded on a CUDA GPU only; use --graph auto or off"),
        (["--precision", "tf32"], "--precision tf32: only CUDA GPUs have it; use --precision auto or fp32"),
    ],
)
def test_what_only_a_gpu_can_do_is_refused_on_the_cpu_before_any_work(capsys, option, message):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--data", "folder", *option, "--device", "cpu"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"Error: {message}\n"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", ["erm", "l2rw", "mwnet", "gdw", "fsr"])
def test_nothing_of_a_step_outlives_it(method, monkeypatch):
    parts = tiny_parts(method, **({"dictionary_size": 8, "probe_size": 4} if method == "fsr" else {}))
    parts.model.train()
    opened, steps = parts.step.open, []

    def noted(*arguments):
        step = opened(*arguments)
        steps.append(weakref.ref(step))
        return step

    monkeypatch.setattr(parts.step, "open", noted)
    parts.step.feed(next(parts.feeder.epoch(0, "train", [10])))
    gc.disable()
    try:
        parts.step.run(10)
        assert [step() for step in steps] == [None]
    finally:
        gc.enable()
