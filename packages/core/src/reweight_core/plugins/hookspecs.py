"""The hooks that a method or a component implements.

A method is an object with some of these functions, marked with `hookimpl`. Where it has none, core's own
implementation (`plugins.hooks`) is used, so a method writes only what it changes. A component, which adds to any
method, wraps the hooks of which one result is used (``hookimpl(wrapper=True)``); of several components, the first
on the command line acts first. Hooks called inside a step take tensors and return tensors; they must not read values
back to the host (``.item()``, boolean masks, ``if tensor``), because the step may be recorded once and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pluggy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reweight_core.data.batch import Batch, BatchSource
    from reweight_core.data.examples import Examples
    from reweight_core.engine.step import Step

PROJECT = "reweight"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Mark a function as the implementation of a hook."""

Source = Literal["train", "meta"]
"""What a stage trains on: the training set with its observed labels, or the clean meta set."""


@attrs.frozen
class Stage:
    """One phase of training, with a learning-rate schedule of its own.

    Attributes:
        name: label in ``metrics.jsonl``.
        epochs: number of epochs; an epoch has as many steps as the training set has batches, whatever the source.
        lr: learning rate at the stage's start.
        source: what it trains on.
    """

    name: str
    epochs: int
    lr: float
    source: Source = "train"


class Hooks:
    """The specifications; a method need not inherit from this class."""

    @hookspec(firstresult=True)
    def plan_stages(self, stage: Stage) -> Sequence[Stage] | None:
        """Say in which stages a run trains. Called once, before training; one result is used.

        Args:
            stage: the run as the options describe it: all epochs on the training set.

        Returns:
            The stages in order; the default is ``[stage]``.
        """

    @hookspec(firstresult=True)
    def provide_meta_set(self, held_out: Examples | None) -> Examples | BatchSource | None:
        """Supply the examples of the meta batches. Called once, before training; one result is used.

        Args:
            held_out: the clean meta set taken out of the data, or None if there is none.

        Returns:
            The examples to draw meta batches from in random order, or an object whose ``draw_batch()`` gives the
            meta batch inside a step; None only where nothing is held out. The default is ``held_out``.
        """

    @hookspec(firstresult=True)
    def transform_batch(self, batch: Batch) -> Batch | None:
        """Change a training batch before its forward pass. Called inside every step; one result is used.

        Args:
            batch: the augmented, normalised images with their labels.

        Returns:
            The batch to train on, with the same ids; the default is ``batch``.
        """

    @hookspec(firstresult=True)
    def generate_weights(self, step: Step) -> Tensor | None:
        """Give the weights of the batch. Called inside every step; one result is used.

        A weight of 1 for every example is plain training: the update follows the mean of the weighted losses.

        Args:
            step: the batch with its detached logits and losses, and the look-ahead.

        Returns:
            Detached weights, shape (n,) for examples or (n, C) for the class-level entries of each logit
            gradient, in the type and on the device of ``step.D``; the default is ones of shape (n,).
        """

    @hookspec(firstresult=True)
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor | None:
        """Turn the logit gradient D into the D' of the real update. Called inside every step; one result is used.

        Args:
            step: the batch; ``step.D`` is the gradient of its mean loss with respect to the logits, (n, C).
            weights: what `generate_weights` returned.

        Returns:
            D', detached, shape (n, C); the default is ``weights * step.D``.
        """

    @hookspec(firstresult=True)
    def example_weights(self, step: Step, weights: Tensor) -> Tensor | None:
        """Say what is recorded as each example's weight. Called inside every step; one result is used.

        Args:
            step: the batch; ``step.method_gradient`` is what the method made of D.
            weights: what `generate_weights` returned.

        Returns:
            One number for each example, detached, shape (n,); the default is the weights themselves, or the mean of
            class-level ones over the classes.
        """

    @hookspec
    def follow_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Hear of the new parameters. Called inside every step, after the update; all implementations are called.

        Args:
            parameters: the trainable parameters by name, to be read only.
        """

    @hookspec
    def finish_epoch(self, epoch: int) -> Mapping[str, float] | None:
        """Do an epoch's last work. Called between steps, before evaluation; all implementations are called.

        Args:
            epoch: number of epochs finished.

        Returns:
            Figures to add to the epoch's line of ``metrics.jsonl``, or None.
        """

    @hookspec
    def trusted_examples(self) -> Mapping[str, Tensor] | None:
        """Name training examples that are held to be rightly labelled. Called between steps, after `finish_epoch`.

        All implementations are called. A plugin never sees a true label; where they are known, core writes the share
        of each set that is indeed rightly labelled into the epoch's line of ``metrics.jsonl``, as ``NAME_purity``.

        Returns:
            Positions in the training set, int64 (k,), by the name of the set, or None.
        """

    @hookspec(firstresult=True)
    def evaluation_model(self, model: nn.Module) -> nn.Module | None:
        """Give the network to evaluate and to keep. Called between steps; one result is used.

        Args:
            model: the network in training, which must stay as it is.

        Returns:
            A network of the same structure; the default is ``model``.
        """

    @hookspec
    def observe_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Hear of a finished epoch. Called between steps, after every epoch; all implementations are called.

        Args:
            metrics: the epoch's line of ``metrics.jsonl``.
        """

    @hookspec
    def observe_step(self, done: int, total: int) -> None:
        """Hear of a finished step, without values. All implementations are called, between steps.

        Args:
            done: steps finished since the run began.
            total: steps of the whole run.
        """
