"""The contract of a loss plugin, as tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from reweight_core.data.batch import Batch, one_hot
from reweight_core.data.examples import Examples
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.step import Step
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.testing.method_suite import MethodSuite, assert_replays_like_eager, run_steps
from reweight_core.testing.tiny import tiny_parts
from reweight_core.training.build import Parts

GAP = 80.0
"""Difference of logits at which a probability is next to nothing in single precision."""


class LossSuite(MethodSuite):
    """Subclass it as ``class TestMine(LossSuite)`` and name the loss.

    Attributes:
        name: the loss's name on the command line.
        method: the method that it is tested with.
        options: options to test it with, by name (the loss's with its name before them).
        rows_sum_to_zero: whether the gradient of each example sums to 0 over the logits, as it does wherever the loss
            depends on their softmax.
    """

    kind = "loss"
    method: ClassVar[str] = "erm"
    rows_sum_to_zero: ClassVar[bool] = True

    def parts(self, observers: Sequence[object] = (), **options: Any) -> Parts:
        """Build what a run with the loss trains with, on tiny data."""
        return tiny_parts(self.method, observers, **{"loss": self.name, **self.options, **options})

    def plugin_object(self) -> object:
        """Return what the plugin builds."""
        return self.parts().hooks.plugins[self.name]

    def trained(self, **options: Any) -> Parts:
        """Build a run and take three steps, after which a loss that remembers examples does."""
        parts = self.parts(**options)
        run_steps(parts, 3)
        return parts

    def test_losses_are_one_for_each_example_and_finite_with_their_gradients(self) -> None:
        parts = self.trained()
        _assert_finite(parts, _batch(parts), _logits(parts))
        if not registry.find("loss", self.name).per_example:
            assert isinstance(parts.meta, Examples)
            labels = parts.meta.labels
            clean = Batch(torch.arange(len(labels)), torch.zeros(len(labels), 1), labels, source="meta")
            _assert_finite(parts, clean, _logits(parts, n=len(labels)))

    def test_the_gradient_of_each_example_sums_to_zero_if_it_says_so(self) -> None:
        parts = self.trained()
        rows = _rows(parts, _batch(parts), _logits(parts))
        assert rows.abs().max() > 1e-3
        assert (rows.sum(1).abs().max().item() < 1e-5) == self.rows_sum_to_zero

    def test_the_gradient_is_that_of_the_losses(self) -> None:
        parts = self.trained()
        batch = _batch(parts)
        logits = _logits(parts, torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda at: parts.hooks.losses(batch, at), (logits,))

    def test_target_rows_of_labels_are_labels_if_it_takes_them(self) -> None:
        parts = self.trained()
        batch, logits = _batch(parts), _logits(parts)
        rows = None
        if not registry.find("loss", self.name).one_label:
            rows = one_hot(batch.labels, logits.shape[1], torch.float32)
        losses = parts.hooks.losses(attrs.evolve(batch, targets=rows), logits)
        torch.testing.assert_close(losses, parts.hooks.losses(batch, logits))

    def test_a_batch_may_be_all_of_one_class(self) -> None:
        parts = self.trained()
        batch = _batch(parts)
        _assert_finite(parts, attrs.evolve(batch, labels=torch.full_like(batch.labels, 2)), _logits(parts))

    def test_there_may_be_two_classes(self) -> None:
        parts = self.trained(classes=2)
        _assert_finite(parts, _batch(parts), _logits(parts))

    def test_certain_predictions_leave_everything_finite(self) -> None:
        parts = self.trained()
        classes = len(parts.data.dataset.classes)
        batch = _batch(parts)
        # of the right class and of the next one
        for predicted in (batch.labels, (batch.labels + 1) % classes):
            logits = GAP * one_hot(predicted, classes, torch.float32)
            _assert_finite(parts, batch, logits)
            _assert_finite(parts, batch, -logits)

    def test_asking_for_the_losses_changes_nothing(self) -> None:
        parts = self.trained()
        batch, logits = _batch(parts), _logits(parts)
        before = {name: tensor.clone() for name, tensor in parts.hooks.state_dict().items()}
        first, other, again = (parts.hooks.losses(batch, at) for at in (logits, -logits, logits))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        after = parts.hooks.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_a_method_may_look_ahead_on_top_of_it(self) -> None:
        watcher = LooksAhead()
        run_steps(self.looking_ahead(watcher), 3)
        assert len(watcher.weights) == 3
        assert all(weights.isfinite().all() for weights in watcher.weights)
        assert any(weights.ne(weights[0]).any() for weights in watcher.weights)

    def test_a_recorded_step_that_looks_ahead_replays_like_an_eager_one(self) -> None:
        assert_replays_like_eager(lambda: self.looking_ahead(LooksAhead()))

    def looking_ahead(self, method: LooksAhead) -> Parts:
        """Build a run with the loss whose weights come from a look-ahead."""
        parts = self.parts(observers=[method])
        parts.step.lookahead = Choice("jvp")
        return parts


class LooksAhead:
    """L2RW's weights: the direction that improves a clean batch, rectified and normalised (Ren et al., ICML 2018)."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """Give them, and keep them."""
        epsilon = torch.zeros_like(step.losses).requires_grad_()
        meta_loss = step.meta_loss(epsilon[:, None] * step.D, unit_rate=True)
        (gradient,) = torch.autograd.grad(meta_loss, epsilon)
        weights = (-gradient).clamp(min=0)
        total = weights.sum()
        weights = step.n * weights / torch.where(total == 0, 1, total)
        self.weights.append(weights)
        return weights


def _batch(parts: Parts) -> Batch:
    """Return the first ten training examples, of every class among them."""
    ids = torch.arange(0, 40, 4)[:10] % len(parts.train)
    return Batch(ids, torch.zeros(len(ids), 1), parts.train.labels[ids])


def _logits(parts: Parts, dtype: torch.dtype = torch.float32, n: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(n, len(parts.data.dataset.classes), generator=generator, dtype=dtype)


def _rows(parts: Parts, batch: Batch, logits: Tensor) -> Tensor:
    logits = logits.detach().requires_grad_()
    (rows,) = torch.autograd.grad(parts.hooks.losses(batch, logits).sum(), logits)
    return rows


def _assert_finite(parts: Parts, batch: Batch, logits: Tensor) -> None:
    """Check the losses and their gradients; their shapes and types are checked by the hooks."""
    assert parts.hooks.losses(batch, logits).isfinite().all()
    assert _rows(parts, batch, logits).isfinite().all()
