"""The contract of a method plugin, as tests."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from reweight_core.config.options import options_of
from reweight_core.config.resolve import owner_of
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder
from reweight_core.engine.step import Step
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import PROJECT, hookimpl
from reweight_core.testing.recorder import Recorder
from reweight_core.testing.tiny import tiny_parts
from reweight_core.training.build import Parts
from reweight_core.training.state import TrainingState


class MethodSuite:
    """Subclass it as ``class TestMine(MethodSuite)`` and name the method.

    Attributes:
        name: the method's name on the command line.
        options: options of the method to test it with, by name.
    """

    kind: ClassVar[str] = "method"
    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    def parts(self, observers: Sequence[object] = (), **options: Any) -> Parts:
        """Build what a run of the method trains with, on tiny data; override it for a method that needs more."""
        return tiny_parts(self.name, observers, **{**self.options, **options})

    def plugin_object(self) -> object:
        """Return what the plugin builds."""
        return self.parts().hooks.plugins[self.name]

    def test_entry_point_holds_a_complete_record(self) -> None:
        plugin = registry.find(self.kind, self.name)
        assert plugin.summary and "\n" not in plugin.summary
        assert all(item.help for item in options_of(owner_of(self.kind, self.name)))

    def test_finding_the_plugin_imports_no_torch(self) -> None:
        code = (
            "import sys; from reweight_core.plugins import registry; "
            f"registry.find({self.kind!r}, {self.name!r}); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_hook_arguments_have_no_defaults(self) -> None:
        # pluggy 1.6 never passes an argument that has a default, 1.7 does: the same plugin would train differently
        for name, function in inspect.getmembers(self.plugin_object(), callable):
            if hasattr(function, f"{PROJECT}_impl"):
                parameters = inspect.signature(function).parameters.values()
                assert all(p.default is p.empty for p in parameters), name

    def test_weights_are_finite_and_detached(self) -> None:
        watcher = _Weights()
        run_steps(self.parts(observers=[watcher]), 3)
        assert len(watcher.seen) == 3
        for step, weights in watcher.seen:
            assert weights.shape in {(step.n,), tuple(step.D.shape)}
            assert torch.isfinite(weights).all()
            assert not weights.requires_grad

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
        assert_same_state(uninterrupted, restored)

    def test_recorded_step_replays_like_an_eager_one(self) -> None:
        assert_replays_like_eager(self.parts)

    def test_running_batch_statistics_change_once_a_step(self) -> None:
        parts = self.parts()
        run_steps(parts, 3)
        counts = [b for name, b in parts.model.named_buffers() if name.endswith("num_batches_tracked")]
        assert counts and all(count.item() == 3 for count in counts)


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


def feed(parts: Parts, index: int) -> None:
    """Give the step the first batch of the `index`-th epoch, and a learning rate."""
    # not the feeder of the run: runs of two seeds are to be fed the same
    feeder = Feeder(parts.train, parts.meta, parts.config.meta_batch_size, seed=0, workers=0)
    parts.step.feed(next(feeder.epoch(index, parts.stages[0].source, [_size(parts)])))
    parts.step.lr.fill_(0.1 / (1 + index))


def run_fed(parts: Parts) -> None:
    """Run the step that was fed."""
    parts.step.run(_size(parts), parts.stages[0])


def _size(parts: Parts) -> int:
    examples = parts.train if parts.stages[0].source == "train" else parts.meta
    assert isinstance(examples, Examples)
    return min(parts.config.batch_size, len(examples))


def run_steps(parts: Parts, stop: int, first: int = 0) -> None:
    """Run the steps `first` to `stop` - 1."""
    parts.model.train()
    for index in range(first, stop):
        feed(parts, index)
        run_fed(parts)


def assert_same_state(first: Parts, second: Parts, atol: float = 0.0) -> None:
    """Compare the state of two runs, bit for bit unless a tolerance is given."""
    a, b = TrainingState(first).state_dict(), TrainingState(second).state_dict()
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.allclose(a[name].double(), b[name].double(), rtol=atol, atol=atol)]
    assert not different, different


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
