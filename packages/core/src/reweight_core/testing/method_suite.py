"""The contract of a method plugin, as tests."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from reweight_core.config.options import Owner, options_of
from reweight_core.data.dataset import Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder
from reweight_core.engine.step import Step
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import PROJECT
from reweight_core.testing.recorder import Recorder
from reweight_core.testing.tiny import tiny_trainer
from reweight_core.training.loop import Trainer


class MethodSuite:
    """Subclass it as ``class TestMine(MethodSuite)`` and name the method.

    Attributes:
        name: the method's name on the command line.
        options: options of the method to test it with, by name.
    """

    kind: ClassVar[str] = "method"
    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    def trainer(self, **options: Any) -> Trainer:
        """Build a trainer of the method on tiny data; override it for a method that needs more."""
        return tiny_trainer(self.name, **{**self.options, **options})

    def owner(self, config_class: type) -> Owner:
        """Return who declares the plugin's options."""
        return Owner(self.name, config_class)

    def plugin_object(self) -> object:
        """Return what the plugin builds."""
        return self.trainer().method

    def test_entry_point_holds_a_complete_record(self) -> None:
        plugin = registry.find(self.kind, self.name)
        assert plugin.summary and "\n" not in plugin.summary
        assert all(item.help for item in options_of(self.owner(plugin.config)))

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
        trainer = self.trainer()
        seen = _record_weights(trainer)
        run_steps(trainer, 3)
        assert len(seen) == 3
        for step, weights in seen:
            assert weights.shape in {(step.n,), tuple(step.D.shape)}
            assert torch.isfinite(weights).all()
            assert not weights.requires_grad

    def test_same_seed_gives_the_same_run(self) -> None:
        first, second = self.trainer(), self.trainer()
        run_steps(first, 4)
        run_steps(second, 4)
        assert_same_state(first, second)

    def test_restored_state_continues_like_an_uninterrupted_run(self) -> None:
        uninterrupted, saved, restored = self.trainer(), self.trainer(), self.trainer(seed=1)
        run_steps(uninterrupted, 5)
        run_steps(saved, 3)
        state = {name: tensor.clone() for name, tensor in full_state(saved).items()}
        assert all(isinstance(tensor, Tensor) for tensor in state.values())
        load_full_state(restored, state)
        run_steps(restored, 5, first=3)
        assert_same_state(uninterrupted, restored)

    def test_recorded_step_replays_like_an_eager_one(self) -> None:
        assert_replays_like_eager(self.trainer)

    def test_running_batch_statistics_change_once_a_step(self) -> None:
        trainer = self.trainer()
        run_steps(trainer, 3)
        counts = [b for name, b in trainer.model.named_buffers() if name.endswith("num_batches_tracked")]
        assert counts and all(count.item() == 3 for count in counts)


def assert_replays_like_eager(make_trainer: Callable[[], Trainer]) -> None:
    """Compare a recorded step that is replayed with eager steps, bit for bit."""
    eager, recorded = make_trainer(), make_trainer()
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
    outside = make_trainer()
    run_steps(outside, 5)
    assert_same_state(outside, recorded, atol=1e-4)


def feed(trainer: Trainer, index: int) -> None:
    """Give the trainer's step the first batch of the `index`-th epoch, and a learning rate."""
    # not the trainer's own feeder: runs of two seeds are to be fed the same
    feeder = Feeder(trainer.train, trainer.meta, trainer.config.meta_batch_size, seed=0, workers=0)
    trainer.step.feed(next(feeder.epoch(index, trainer.stages[0].source, [_size(trainer)])))
    trainer.step.lr.fill_(0.1 / (1 + index))


def run_fed(trainer: Trainer) -> None:
    """Run the step that was fed."""
    trainer.step.run(_size(trainer), trainer.stages[0].source)


def _size(trainer: Trainer) -> int:
    examples = trainer.data.train if trainer.stages[0].source == "train" else trainer.meta
    assert isinstance(examples, Examples | Split)
    return min(trainer.config.batch_size, len(examples))


def run_steps(trainer: Trainer, stop: int, first: int = 0) -> None:
    """Run the steps `first` to `stop` - 1."""
    trainer.model.train()
    for index in range(first, stop):
        feed(trainer, index)
        run_fed(trainer)


def full_state(trainer: Trainer) -> dict[str, Tensor]:
    """Return everything that training carries on: network, step, method and components."""
    state = {f"model.{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    state |= {f"step.{name}": tensor for name, tensor in trainer.step.state_dict().items()}
    return state | {f"parts.{name}": tensor for name, tensor in trainer.state_of_parts().items()}


def load_full_state(trainer: Trainer, state: Mapping[str, Tensor]) -> None:
    """Restore what `full_state` returned."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

    trainer.model.load_state_dict(part("model."))
    trainer.step.load_state_dict(part("step."))
    trainer.load_state_of_parts(part("parts."))


def assert_same_state(first: Trainer, second: Trainer, atol: float = 0.0) -> None:
    """Compare two trainers, bit for bit unless a tolerance is given."""
    a, b = full_state(first), full_state(second)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.allclose(a[name].double(), b[name].double(), rtol=atol, atol=atol)]
    assert not different, different


def _record_weights(trainer: Trainer) -> list[tuple[Step, Tensor]]:
    seen: list[tuple[Step, Tensor]] = []
    original = trainer.hooks.generate_weights

    def generate_weights(step: Step) -> Tensor:
        weights = original(step)
        seen.append((step, weights))
        return weights

    pytest.MonkeyPatch().setattr(trainer.hooks, "generate_weights", generate_weights)
    return seen
