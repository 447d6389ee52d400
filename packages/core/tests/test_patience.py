"""Which stage ends early and when, by which figure, and which network the run then ends with."""

import json

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reweight_core.engine.stage import Stage
from reweight_core.errors import UserError
from reweight_core.plugins import erm
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.runs import folder as run_folder
from reweight_core.runs.checkpoint import load_latest
from reweight_core.testing import tiny, tiny_parts
from reweight_core.training.build import build_parts
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import train_parts, train_to_the_end
from reweight_core.training.patience import is_in_vain, patient_stage
from reweight_core.training.state import TrainingState


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12), st.integers(1, 5))
def test_it_waits_as_long_as_one_who_counts(figures, patience):
    best, waited, expected = -1.0, 0, []
    for figure in figures:
        best, waited = (figure, 0) if figure > best else (best, waited + 1)
        expected.append(waited >= patience)
    # the epochs of a stage are numbered from the beginning of the run
    epochs = [{"epoch": 7 + number, "figure": figure} for number, figure in enumerate(figures)]
    found = [is_in_vain(epochs[: end + 1], "figure", patience) for end in range(len(epochs))]
    # whoever counts stops at the first
    first = expected.index(True) if True in expected else len(expected)
    assert found[: first + 1] == expected[: first + 1]


def test_without_patience_or_epochs_nothing_is_in_vain():
    assert not is_in_vain([{"epoch": epoch, "figure": 0.5} for epoch in range(1, 50)], "figure", 0)
    assert not is_in_vain([], "figure", 1)


@pytest.mark.parametrize(
    ("plain", "found"), [([False], 0), ([True, False, True, True], 1), ([False, False], 1), ([True, True], 1)]
)
def test_the_last_stage_that_is_not_plain_may_end(plain, found):
    assert patient_stage([Stage("s", 1, 0.1, plain=one) for one in plain]) == found


class Planned:
    """A method with the given stages."""

    def __init__(self, *stages):
        self._stages = stages

    @hookimpl
    def plan_stages(self, stage):
        return [attrs.evolve(stage, **changes) for changes in self._stages]

    @hookimpl
    def generate_weights(self, step):
        return torch.ones_like(step.losses)


@pytest.fixture
def parts_of(monkeypatch):
    """Build parts of a method in place of erm, its validation set the test images."""

    def with_val(config, data, observers, together):
        return build_parts(config, attrs.evolve(data, val=data.test), observers, together=together)

    def parts_of(*stages, observers=(), **options):
        method = Planned(*stages or [{}])
        record = attrs.evolve(erm.plugin, build=lambda config, context: method)
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)
        monkeypatch.setattr(run_folder, "write_config", lambda *_: None)
        monkeypatch.setattr(tiny, "build_parts", with_val)
        given = {"model": "mlp", "augment": "none", "val_size": 12, "lr": 1e-30}
        return tiny_parts("erm", observers, **given | options)

    return parts_of


def train(folder, parts):
    folder.mkdir()
    return train_parts(parts, HeldOut.of(parts.config, parts.data, parts.device), folder)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def figures(monkeypatch):
    """Let the epochs of a run have these figures, a column each; note the weights of every epoch."""

    def figures(**columns):
        weights = []

        def of_this_epoch(self, model):
            weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return {name: column[len(weights) - 1] for name, column in columns.items()}

        monkeypatch.setattr(HeldOut, "figures", of_this_epoch)
        return weights

    return figures


def test_a_network_that_learns_nothing_ends_after_the_first_epoch_and_as_many_as_it_has_patience(parts_of, tmp_path):
    finished = train(tmp_path / "run", parts_of(epochs=9, patience=3))
    summary = finished.summary
    assert len(lines_of(tmp_path / "run")) == summary["epochs"] == summary["stopped_epoch"] == 4
    assert (summary["stopped_early"], summary["network"], summary["network_epoch"]) == (True, "best", 1)
    # written as if it were over
    assert load_latest(tmp_path / "run" / "checkpoints").manifest.epoch == 4
    assert {"summary.json", "samples.safetensors"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("options", [{"epochs": 4, "patience": 3}, {"epochs": 5}, {"steps": 19, "patience": 3}])
def test_a_run_that_has_all_its_epochs_or_steps_is_not_stopped_early(parts_of, tmp_path, options):
    summary = train(tmp_path / "run", parts_of(**options)).summary
    assert summary["epochs"] == options.get("epochs", 4)
    assert (summary["stopped_early"], summary["stopped_epoch"]) == (False, None)
    assert summary["network"] == ("best" if "patience" in options else "last")


STAGES = (
    {"name": "estimate", "epochs": 3, "plain": True},
    {"name": "earlier", "epochs": 3},
    {"name": "train", "epochs": 9},
    {"name": "again", "epochs": 1, "plain": True},
    {"name": "fine-tune", "epochs": 2, "plain": True, "source": "meta"},
)


def test_stages_before_and_after_the_one_that_may_end_are_whole(parts_of, tmp_path):
    summary = train(tmp_path / "run", parts_of(*STAGES, patience=1)).summary
    stages = [line["stage"] for line in lines_of(tmp_path / "run")]
    lengths = {name: stages.count(name) for name in stages}
    # its own first epoch is the best of it, whatever there was before
    assert lengths == {"estimate": 3, "earlier": 3, "train": 2, "again": 1, "fine-tune": 2}
    assert (summary["stopped_early"], summary["stopped_epoch"], summary["epochs"]) == (True, 8, 11)


@pytest.mark.parametrize("epoch", [8, 9, 11], ids=["while it waits", "after the end", "stages later"])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(parts_of, tmp_path, epoch):
    class Interrupt:
        @hookimpl
        def observe_epoch(self, metrics):
            if metrics["epoch"] == epoch:
                raise KeyboardInterrupt

    options = {"patience": 1, "checkpoint_every": "1epochs"}
    whole = train(tmp_path / "whole", parts_of(*STAGES, **options)).summary
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", parts_of(*STAGES, observers=[Interrupt()], **options))
    again = parts_of(*STAGES, **options)
    state = TrainingState(again)
    state.restore(load_latest(tmp_path / "run" / "checkpoints"))
    assert state.epochs_done == epoch - 1
    run_folder.write_metrics(tmp_path / "run", state.history)
    found = train_to_the_end(state, HeldOut.of(again.config, again.data, again.device), tmp_path / "run", "").summary
    timed = {"seconds", "seconds_per_step", "peak_memory_bytes"}
    assert found.keys() == whole.keys()
    assert all(found[name] == whole[name] for name in whole if name not in timed)


@pytest.mark.parametrize(
    ("by", "best", "epochs"), [("val_accuracy", 2, 4), ("val_balanced_accuracy", 4, 6), (None, 2, 4)]
)
def test_the_figure_that_is_asked_for_chooses_the_network_and_is_waited_for(
    parts_of, tmp_path, figures, by, best, epochs
):
    weights = figures(
        val_accuracy=[0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6],
        val_balanced_accuracy=[0.5, 0.4, 0.6, 0.7, 0.7, 0.1, 0.9],
        # the test set has no say
        test_accuracy=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        test_balanced_accuracy=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
    )
    parts = parts_of(epochs=7, patience=2, lr=0.1, **{"best_by": by} if by else {})
    finished = train(tmp_path / "run", parts)
    assert (finished.summary["best_epoch"], finished.summary["epochs"]) == (best, epochs)
    kept = load_latest(tmp_path / "run" / "checkpoints")
    for name, tensor in weights[best - 1].items():
        assert torch.equal(finished.model.state_dict()[name], tensor) and torch.equal(kept.best[name], tensor)
        assert torch.equal(kept.model[name], weights[-1][name])
    assert not all(torch.equal(weights[-1][name], tensor) for name, tensor in weights[best - 1].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"patience": 3},
            r"^--patience 3: is judged by a validation set, and there is none: give --val-size N, or --val-fold K/N$",
        ),
        ({"best_by": "val_balanced_accuracy"}, r"^--best-by val_balanced_accuracy: is judged by a validation set"),
        ({"patience": -1, "val_size": 12}, "patience"),
        ({"best_by": "test_accuracy", "val_size": 12}, "best-by"),
    ],
)
def test_what_needs_a_validation_set_is_refused_without_one(options, message):
    with pytest.raises(UserError, match=message):
        tiny_parts("erm", model="mlp", **options)
