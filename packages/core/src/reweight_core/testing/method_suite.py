"""The contract of a method plugin, as tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder
from reweight_core.engine.head import find_head
from reweight_core.engine.step import Step
from reweight_core.errors import UserError
from reweight_core.machine.interruption import Interruption
from reweight_core.machine.together import ALONE, Together
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.runs.checkpoint import read
from reweight_core.testing.in_turns import InTurns
from reweight_core.testing.record_suite import RecordSuite
from reweight_core.testing.recorder import Recorder
from reweight_core.testing.tiny import tiny_parts
from reweight_core.training.auto import tried
from reweight_core.training.build import Parts, begin
from reweight_core.training.loop import train_epoch
from reweight_core.training.saving import Saving
from reweight_core.training.state import TrainingState

EXACT = 1e-9
"""How far two processes may be from one, in double precision."""

GAP = 80.0
"""Difference of logits at which a probability is next to nothing in single precision."""


class MethodSuite(RecordSuite):
    """Subclass it as ``class TestMine(MethodSuite)`` and name the method.

    Attributes:
        name: the method's name on the command line.
        options: options of the method to test it with, by name.
    """

    kind = "method"
    options: ClassVar[Mapping[str, Any]] = {}

    def parts(self, observers: Sequence[object] = (), **options: Any) -> Parts:
        """Build what a run of the method trains with, on tiny data; override it for a method that needs more."""
        return tiny_parts(self.name, observers, **{**self.options, **options})

    def plugin_object(self) -> object:
        """Return what the plugin builds."""
        return self.parts().hooks.plugins[self.name]

    def test_weights_are_finite(self) -> None:
        watcher = _Weights()
        run_steps(self.parts(observers=[watcher]), 3)
        assert len(watcher.seen) == 3
        for step, weights in watcher.seen:
            assert weights.shape in {(step.n,), tuple(step.D.shape)}
            assert torch.isfinite(weights).all()

    def test_same_seed_gives_the_same_run(self) -> None:
        first, second = self.parts(), self.parts()
        run_steps(first, 4)
        run_steps(second, 4)
        assert_same_state(first, second)

    def test_restored_state_continues_like_an_uninterrupted_run(self) -> None:
        uninterrupted, saved, restored = self.parts(), self.parts(), self.parts(seed=1)
        run_steps(uninterrupted, 5)
        run_steps(saved, 3)
        state = {name: tensor.clone() for name, tensor in TrainingState(saved).state_dict().items()}
        assert all(isinstance(tensor, Tensor) for tensor in state.values())
        TrainingState(restored).load_state_dict(state)
        run_steps(restored, 5, first=3)
        assert_same_state(uninterrupted, restored, why=f"{_OUTSIDE}: a restored run goes on differently")

    def test_comparisons_of_look_aheads_leave_no_trace(self) -> None:
        compared, undisturbed = self.parts(model="mlp"), self.parts(model="mlp")
        for parts in (compared, undisturbed):
            run_steps(parts, 2)
        feed(compared, 2)
        for _ in range(2):
            tried(compared.step, _size(compared), compared.step.lookahead, compared.stages[0])
        why = f"{_OUTSIDE}: hooks of a step are called without an update to compare look-aheads, and that moves the run"
        assert_same_state(compared, undisturbed, why=why)
        for parts in (compared, undisturbed):
            run_steps(parts, 5, first=2)
        assert_same_state(compared, undisturbed, why=why)

    def test_it_trains_without_clean_examples_or_is_refused_before(self) -> None:
        try:
            parts = self.parts(model="mlp", meta_set=False)
        except UserError:
            return
        # a method that asks for them here lacks needs_meta_set=True in its record
        run_steps(parts, 2)

    def test_what_it_gives_at_the_end_of_an_epoch_can_be_written(self) -> None:
        parts = self.parts(model="mlp")
        run_steps(parts, 3)
        json.dumps(parts.hooks.finish_epoch(1, parts.step.samples.tensors))
        for name, ids in parts.hooks.trusted_examples().items():
            assert ((ids >= 0) & (ids < len(parts.train))).all(), f"'{name}' has positions outside the training set"
        kept = parts.hooks.evaluation_model(parts.model).state_dict()
        assert kept.keys() == parts.model.state_dict().keys(), "evaluation_model gave a network of another structure"

    def test_a_batch_may_be_all_of_one_class(self) -> None:
        parts = self.parts(model="mlp")
        examples = _examples(parts)
        ids = torch.nonzero(examples.labels == examples.labels[0]).flatten()
        parts.model.train()
        for _ in range(3):
            feed(parts, 0, ids)
            parts.step.run(len(ids), parts.stages[0])
        assert_finite(parts)

    def test_there_may_be_two_classes(self) -> None:
        parts = self.parts(model="mlp", classes=2)
        run_steps(parts, 3)
        assert_finite(parts)

    def test_certain_predictions_leave_everything_finite(self) -> None:
        parts = self.parts(model="mlp")
        path = find_head(parts.model, parts.train.batch(torch.arange(2), None).inputs)
        assert path is not None
        bias = parts.model.get_submodule(path).bias
        assert isinstance(bias, Tensor)
        with torch.no_grad():
            # right for the examples of class 0, wrong for all others
            bias[0] = GAP
        run_steps(parts, 3)
        assert_finite(parts)

    def test_recorded_step_replays_like_an_eager_one(self) -> None:
        assert_replays_like_eager(self.parts)

    def test_several_processes_are_one(self) -> None:
        if not registry.find(self.kind, self.name).several_processes:
            return
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            one = self._trained(ALONE)
            for each in InTurns(2).run(self._trained):
                assert_same_state(one, each, EXACT, f"two processes are not one: {_NOT_WHOLE}")
        finally:
            torch.set_default_dtype(before)

    def _trained(self, together: Together) -> Parts:
        """Train a whole run, as one of its processes."""
        parts = self.parts(model="mlp", batch_size=12, together=together)
        begin(parts)
        _train_to_the_end(TrainingState(parts))
        return parts

    def test_a_run_that_goes_on_within_an_epoch_is_the_uninterrupted_one(self) -> None:
        options: dict[str, Any] = {"model": "mlp", "batch_size": 12, "checkpoint_every": "1steps", "keep": 99}
        whole = self.parts(**options)
        begin(whole)
        with TemporaryDirectory() as run:
            state = TrainingState(whole)
            _train_to_the_end(state, Saving(state, Path(run), "", None, Interruption()))
            saved = [read(folder) for folder in sorted((Path(run) / "checkpoints").iterdir())]
        within = [kept for kept in saved if kept.manifest.within is not None]
        assert within, "no checkpoint within an epoch"
        for kept in within:
            resumed = self.parts(**options)
            state = TrainingState(resumed)
            state.restore(kept)
            _train_to_the_end(state)
            why = f"{_OUTSIDE}: a run that goes on after step {kept.manifest.step} ends differently"
            assert_same_state(whole, resumed, why=why)

    def test_a_step_that_is_skipped_changes_nothing(self) -> None:
        spoiler = _Spoiler()
        parts = self.parts(observers=[spoiler], model="mlp", on_nonfinite="skip")
        run_steps(parts, 2)
        before = {name: tensor.clone() for name, tensor in TrainingState(parts).state_dict().items()}
        spoiler.spoils = True
        run_steps(parts, 3, first=2)
        after = TrainingState(parts).state_dict()
        assert after.pop("step.sums.skipped_steps") == 1
        # generators have drawn; their states are bytes
        changed = [
            n for n, tensor in after.items() if tensor.dtype != torch.uint8 and not torch.equal(tensor, before[n])
        ]
        assert not changed, f"a step that is not finite changes something though it is to be skipped ({changed})"

    def test_running_batch_statistics_change_once_a_step(self) -> None:
        parts = self.parts()
        run_steps(parts, 3)
        counts = [b for name, b in parts.model.named_buffers() if name.endswith("num_batches_tracked")]
        assert counts and all(count.item() == 3 for count in counts)


def _train_to_the_end(state: TrainingState, saving: Saving | None = None) -> None:
    parts = state.parts
    while not state.is_over:
        if state.stage_is_over:
            state.begin_next_stage()
        train_epoch(state, state.next_epoch(), saving)
        parts.hooks.finish_epoch(state.epochs_done, parts.step.samples.tensors)
        state.history.append({"val_accuracy": None, "val_balanced_accuracy": None})


def assert_replays_like_eager(make_parts: Callable[[], Parts]) -> None:
    """Compare a recorded step that is replayed with eager steps, bit for bit."""
    eager, recorded = make_parts(), make_parts()
    # optimizers make their state in the first step, so the first is not recorded
    run_steps(eager, 1)
    run_steps(recorded, 1)
    for index in range(1, 5):
        feed(eager, index)
        # some of torch's forward-mode rules round differently while any dispatch mode is active
        with Recorder():
            run_fed(eager)
    recorder = Recorder()
    feed(recorded, 1)
    with recorder:
        run_fed(recorded)
    for index in range(2, 5):
        feed(recorded, index)
        recorder.replay()
    assert_same_state(eager, recorded)
    outside = make_parts()
    run_steps(outside, 5)
    assert_same_state(outside, recorded, atol=1e-4)


def feed(parts: Parts, index: int, ids: Tensor | None = None) -> None:
    """Give the step the first batch of the `index`-th epoch, or the examples `ids`, and a learning rate."""
    # not the feeder of the run: runs of two seeds are to be fed the same
    feeder = Feeder(parts.train, parts.meta, parts.config.meta_batch_size, seed=0, workers=0)
    fed = next(feeder.epoch(index, parts.stages[0].source, [_size(parts)]))
    parts.step.feed(fed if ids is None else attrs.evolve(fed, ids=ids, share=None))
    parts.step.lr.fill_(0.1 / (1 + index))


def run_fed(parts: Parts) -> None:
    """Run the step that was fed."""
    parts.step.run(_size(parts), parts.stages[0])


def _examples(parts: Parts) -> Examples:
    examples = parts.train if parts.stages[0].source == "train" else parts.meta
    assert isinstance(examples, Examples)
    return examples


def _size(parts: Parts) -> int:
    return min(parts.config.batch_size, len(_examples(parts)))


def assert_finite(parts: Parts) -> None:
    """Check that everything was finite in all steps so far, and that the network is."""
    parts.step.health.check(parts.hooks.implementers)
    assert all(torch.isfinite(parameter).all() for parameter in parts.model.parameters())


def run_steps(parts: Parts, stop: int, first: int = 0) -> None:
    """Run the steps `first` to `stop` - 1."""
    parts.model.train()
    for index in range(first, stop):
        feed(parts, index)
        run_fed(parts)


_NOT_WHOLE = (
    "what it sums over a batch does not go through step.total(), what it draws or compares is not that of the whole "
    "batch (step.part(), step.whole()), or what it keeps of examples is not noted by context.by_example()"
)

_OUTSIDE = "something that changes is not in state_dict(), or not brought back by load_state_dict()"


def assert_same_state(first: Parts, second: Parts, atol: float = 0.0, why: str = "the runs differ") -> None:
    """Compare the state of two runs, bit for bit unless a tolerance is given; `why` says what a difference means."""
    a, b = TrainingState(first).state_dict(), TrainingState(second).state_dict()
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.allclose(a[name].double(), b[name].double(), rtol=atol, atol=atol)]
    # the plugin's own come first: of the network's, all differ as soon as one does
    different.sort(key=lambda name: not name.startswith("plugin."))
    shown = ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
    assert not different, f"{why} ({shown})"


class _Spoiler:
    """Makes D' infinite, once it `spoils`."""

    spoils = False

    @hookimpl(wrapper=True)
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Generator[None, Tensor, Tensor]:
        """Spoil it."""
        D_prime = yield
        return torch.inf * D_prime if self.spoils else D_prime


class _Weights:
    """Keeps every step with its weights."""

    def __init__(self) -> None:
        self.seen: list[tuple[Step, Tensor]] = []

    @hookimpl(wrapper=True)
    def generate_weights(self, step: Step) -> Generator[None, Tensor, Tensor]:
        """Keep them."""
        weights = yield
        self.seen.append((step, weights))
        return weights
