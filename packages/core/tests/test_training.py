import json
import math

import attrs
import pytest
import torch
from safetensors import SafetensorError

from reweight_core.data.feeder import batch_sizes
from reweight_core.errors import UserError
from reweight_core.plugins import erm
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.runs.folder import append_metrics, finite
from reweight_core.testing import tiny_parts, train_in
from reweight_core.training.loop import train
from reweight_core.training.schedules import cosine


class Plan:
    """A method with the given stages; it keeps the order in which examples come."""

    def __init__(self, *stages):
        self._stages = stages
        self.ids = []

    @hookimpl
    def plan_stages(self, stage):
        return [attrs.evolve(stage, **changes) for changes in self._stages]

    @hookimpl
    def generate_weights(self, step):
        self.ids.append(step.ids.tolist())
        return torch.ones_like(step.losses)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Train a method object in place of erm; returns its metrics and the summary."""

    def run(method, **options):
        record = attrs.evolve(erm.plugin, build=lambda config, context: method)
        monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)
        monkeypatch.setattr("reweight_core.runs.folder.write_config", lambda *_: None)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        summary = train_in(folder, tiny_parts("erm", model="mlp", **options)).summary
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return lines, summary

    return run


@pytest.mark.parametrize(("memory", "flag"), [(2 * 16 * 64 * 4 - 1, "--batch-size 16"), (2 * 16 * 64 * 4, None)])
def test_batches_that_memory_does_not_hold_are_not_begun(monkeypatch, memory, flag):
    monkeypatch.setattr("reweight_core.training.build.total_memory", lambda: memory)
    if flag is None:
        assert tiny_parts("erm", batch_size=16)
        return
    with pytest.raises(UserError, match=f"{flag}: the inputs of a batch .* would take"):
        tiny_parts("erm", batch_size=16)


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own(run):
    method = Plan({})
    run(method, epochs=2)
    first = [i for ids in method.ids[:5] for i in ids]
    second = [i for ids in method.ids[5:] for i in ids]
    assert [len(ids) for ids in method.ids] == [10, 10, 10, 10, 4] * 2
    assert sorted(first) == sorted(second) == list(range(44))
    assert first != second


def test_the_last_epoch_is_reported_not_the_best(run):
    lines, summary = run(Plan({}), epochs=7)
    accuracies = [line["test_accuracy"] for line in lines]
    assert summary["test_accuracy"] == accuracies[-1]
    assert summary["test_accuracy_mean5"] == pytest.approx(sum(accuracies[-5:]) / 5)


def test_the_summary_judges_mean_weights_and_an_epoch_those_given_last(run):
    class Changing:
        """Weights that tell wrong labels (every fourth) clearly in the first epoch, and turn a little in the second."""

        def __init__(self):
            self._steps = 0

        @hookimpl
        def generate_weights(self, step):
            clean, corrupted = (1.0, 0.0) if self._steps < 5 else (0.4, 0.6)
            self._steps += 1
            return torch.where(step.ids % 4 == 0, corrupted, clean)

    lines, summary = run(Changing(), epochs=2)
    assert [line["noise_auroc"] for line in lines] == [1, 0]
    assert [line["mean_weight_clean"] for line in lines] == pytest.approx([1, 0.4])
    assert [line["mean_weight_corrupted"] for line in lines] == pytest.approx([0, 0.6])
    # over both epochs 0.7 and 0.3
    assert summary["noise_auroc"] == 1


@pytest.mark.parametrize(
    ("every", "steps"), [(1, list(range(1, 11))), (2, [1, 3, 5, 7, 9]), (3, [1, 4, 7, 10]), (20, [1])]
)
def test_the_first_step_looks_ahead_and_then_every_nth_of_the_run(run, monkeypatch, every, steps):
    class Noting(Plan):
        looks = ()

        @hookimpl
        def generate_weights(self, step):
            self.looks += (step.looks_ahead,)
            return torch.ones_like(step.losses)

    monkeypatch.setattr("reweight_core.plugins.erm.plugin", attrs.evolve(erm.plugin, reuses_weights=True))
    method = Noting({})
    # an epoch has five steps: the count goes on over its end
    run(method, epochs=2, meta_every=every)
    assert [number for number, looks in enumerate(method.looks, start=1) if looks] == steps
    assert len(method.looks) == 10


def test_every_stage_has_its_epochs_source_and_schedule(run):
    method = Plan({"name": "a", "epochs": 2, "lr": 0.1}, {"name": "b", "epochs": 3, "lr": 0.01, "source": "meta"})
    lines, _ = run(method)
    expected = [("a", 0.1 * cosine(e, 2)) for e in range(2)] + [("b", 0.01 * cosine(e, 3)) for e in range(3)]
    assert [(line["stage"], line["lr"]) for line in lines] == expected
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25]
    assert max(max(ids) for ids in method.ids[10:]) < 8


@pytest.mark.parametrize(("steps", "epochs_done"), [(1, 1), (5, 1), (6, 2), (13, 3)])
def test_a_run_in_steps_ends_with_the_last_of_them(run, steps, epochs_done):
    method = Plan({})
    lines, summary = run(method, steps=steps)
    assert (summary["steps"], summary["epochs"], len(lines)) == (steps, epochs_done, epochs_done)
    assert len(method.ids) == steps


def test_a_stage_added_to_a_run_in_steps_comes_beside_them(run):
    lines, _ = run(Plan({}, {"name": "more", "steps": 2}), steps=7)
    assert [(line["stage"], line["step"]) for line in lines] == [("train", 5), ("train", 7), ("more", 9)]


def test_the_schedule_of_a_run_in_steps_ends_with_the_last_of_them(run):
    lines, _ = run(Plan({}), steps=13)
    assert [line["lr"] for line in lines] == [0.1 * cosine(e, 13 / 5) for e in range(3)]


@pytest.mark.parametrize(
    ("examples", "batch_size", "sizes"),
    [(44, 10, [10] * 4 + [4]), (40, 10, [10] * 4), (41, 10, [10] * 4), (3, 10, [3]), (12, 10, [10, 2])],
)
def test_a_last_batch_of_one_is_left_out(examples, batch_size, sizes):
    assert batch_sizes(examples, batch_size) == sizes


def test_the_cosine_is_the_closed_form():
    rates = [0.1 * cosine(epoch, 80) for epoch in range(80)]
    assert rates[0] == 0.1
    assert rates[40] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.1 * math.sin(math.pi / 160) ** 2)


def test_a_diverging_run_stops_with_a_reason_and_valid_metrics(run, tmp_path):
    class Exploding(Plan):
        @hookimpl
        def generate_weights(self, step):
            return torch.full_like(step.losses, torch.inf)

    with pytest.raises(
        UserError,
        match=r"step 1: the weights became infinite or not a number \(method 'erm': generate_weights\); report it",
    ):
        run(Exploding({}))
    (line,) = (tmp_path / "0" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["train_loss"] is None


def test_what_is_known_of_each_example_is_told_at_the_end_of_an_epoch(run):
    class Counting(Plan):
        @hookimpl
        def finish_epoch(self, epoch, samples):
            assert all(len(tensor) == 44 for tensor in samples.values())
            return {"mean_visits": samples["visits"].float().mean().item(), "mean_loss": samples["loss"].mean().item()}

    lines, _ = run(Counting({}), epochs=2)
    assert [line["mean_visits"] for line in lines] == [1, 2]
    assert lines[0]["mean_loss"] == pytest.approx(lines[0]["train_loss"])


def test_only_what_json_lacks_becomes_null(tmp_path):
    append_metrics(tmp_path, finite({"a": math.inf, "b": 1.5, "c": None, "d": "x", "e": math.nan}))
    content = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert content == {"a": None, "b": 1.5, "c": None, "d": "x", "e": None}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
        (torch.OutOfMemoryError("CUDA"), "lower --batch-size"),
    ],
)
def test_a_full_disk_or_gpu_is_one_line(error, text, monkeypatch, tmp_path):
    parts = tiny_parts("erm", model="mlp")

    def fail(*_):
        raise error

    monkeypatch.setattr("reweight_core.training.loop.load_data", lambda config: parts.data)
    monkeypatch.setattr("reweight_core.training.loop.build_parts", lambda *_, **__: parts)
    monkeypatch.setattr("reweight_core.training.loop.train_parts", fail)
    with pytest.raises(UserError, match=text):
        train(attrs.evolve(parts.config, out=tmp_path / "run"))
