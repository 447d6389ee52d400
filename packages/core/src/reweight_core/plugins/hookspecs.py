"""The hooks that a method or a component implements.

A method is an object with some of these functions, marked with `hookimpl`. Where it has none, core's own
implementation (`plugins.hooks`) is used, so a method writes only what it changes. A component, which adds to any
method, wraps the hooks of which one result is used (``hookimpl(wrapper=True)``); of several components, the first
on the command line acts first. Hooks called inside a step take tensors and return tensors; they must not read values
back to the host (``.item()``, boolean masks, ``if tensor``), because the step may be recorded once and replayed.
"""

# the bodies of specifications are empty
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from reweight_core.engine.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor, nn

    from reweight_core.data.batch import Batch, BatchSource
    from reweight_core.data.examples import Examples
    from reweight_core.engine.step import Step

PROJECT = "reweight"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Mark a function as the implementation of a hook."""


class Hooks:
    """The specifications; a plugin need not inherit from this class."""

    @hookspec
    def initialise_network(self, model: nn.Module) -> None:
        """Change the initial weights, in place. Called once, before training; all implementations are called.

        It is not called where the weights come from a file, from torchvision or from a checkpoint.

        Args:
            model: the network, or a further one (`Context.new_network`).
        """

    @hookspec(firstresult=True)
    def plan_stages(self, stage: Stage) -> Sequence[Stage]:
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

    @hookspec
    def begin_stage(self, stage: Stage) -> None:
        """Hear that a stage begins. Called between steps; all implementations are called.

        The stage before has been evaluated and its checkpoint written; the network and the optimizer are as
        `Stage.start` and `Stage.fresh_optimizer` say. A run that is resumed within a stage does not begin it again.

        Args:
            stage: the stage.
        """

    @hookspec(firstresult=True)
    def order_epoch(self, stage: Stage, epoch: int, size: int, rng: np.random.RandomState) -> np.ndarray | None:
        """Say which examples an epoch takes, in order. Called between steps, at its beginning; one result is used.

        It is not asked in stages on the meta set.

        Args:
            stage: the stage.
            epoch: number of epochs finished, in all stages.
            size: number of examples that the stage's source has; positions are 0..size-1.
            rng: source of draws, which follows from the run's seed and the epoch.

        Returns:
            Positions, int64 (k,), of any number from 2 on, with or without repeats; they are cut into batches, and the
            epoch has as many steps. None for the default: every example once, in random order.
        """

    @hookspec(firstresult=True)
    def transform_batch(self, batch: Batch) -> Batch:
        """Change a training batch before its forward pass. Called inside every step; one result is used.

        Args:
            batch: the augmented, normalised images with their labels.

        Returns:
            The batch to train on, with the same ids; the default is ``batch``.
        """

    @hookspec
    def follow_forward(self, step: Step) -> None:
        """Hear of a batch's logits, before its losses. Called inside every step, once; all implementations are called.

        The place for what is remembered of each example's predictions. The step's losses and D are not known yet.

        Args:
            step: the batch with its detached logits.
        """

    @hookspec(firstresult=True)
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """Give the loss of each example. Called inside steps; one result is used.

        ``step.losses``, D and the reported loss follow from it. It changes no state: a step may ask again, at other
        logits (`Step.gradients_at`) or of the meta batch (``--meta-loss``).

        Args:
            batch: the examples; ``batch.ids`` are positions in the training set, or in the meta set
                where ``batch.source`` is ``meta``.
            logits: their logits (n, C), at least single precision.

        Returns:
            The losses (n,), differentiable in `logits`; the default is the cross-entropy with the targets.
        """

    @hookspec(firstresult=True)
    def generate_weights(self, step: Step) -> Tensor:
        """Give the weights of the batch. Called inside every step; one result is used.

        A weight of 1 for every example is plain training: the update follows the mean of the weighted losses.

        Args:
            step: the batch with its detached logits and losses, and the look-ahead.

        Returns:
            Detached weights, shape (n,) for examples or (n, C) for the class-level entries of each logit
            gradient, in the type and on the device of ``step.D``; the default is ones of shape (n,).
        """

    @hookspec(firstresult=True)
    def manipulate_gradient(self, step: Step, weights: Tensor) -> Tensor:
        """Turn the logit gradient D into the D' of the real update. Called inside every step; one result is used.

        Args:
            step: the batch; ``step.D`` is the gradient of its mean loss with respect to the logits, (n, C).
            weights: what `generate_weights` returned.

        Returns:
            D', detached, shape (n, C); the default is ``weights * step.D``.
        """

    @hookspec(firstresult=True)
    def manipulate_update(self, step: Step, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Change the gradients that the optimizer takes. Called inside every step; one result is used.

        Args:
            step: the batch; `Step.gradients_at` gives the gradients at other parameters.
            gradients: J^T D' by parameter name, to be read only.

        Returns:
            A gradient for each parameter, detached; the default is ``gradients``. ``--max-grad-norm`` clips the result.
        """

    @hookspec(firstresult=True)
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
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
    def finish_epoch(self, epoch: int, samples: Mapping[str, Tensor]) -> Mapping[str, float] | None:
        """Do an epoch's last work. Called between steps, before evaluation; all implementations are called.

        Args:
            epoch: number of epochs finished.
            samples: what was last seen of each training example, (N,) each, to be read only: ``loss``, ``probability``
                of its label, ``margin``, ``predicted``, ``last_weight``; and ``weight_sum``, ``loss_sum`` and
                ``margin_sum`` over its ``visits``, their number (0 for one that was never in a batch). In train mode,
                before the update.

        Returns:
            Figures to add to the epoch's line of ``metrics.jsonl``, by names that core does not use, or None.
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
    def evaluation_model(self, model: nn.Module) -> nn.Module:
        """Give the network to evaluate and to keep. Called between steps; one result is used.

        Args:
            model: the network in training, which must stay as it is.

        Returns:
            A network of the same structure; the default is ``model``.
        """

    @hookspec(firstresult=True)
    def final_model(self, model: nn.Module) -> nn.Module:
        """Give the network that the run ends with. Called once, after the last epoch; one result is used.

        Args:
            model: what `evaluation_model` gave at the end (with ``--patience``, when it was best), in eval mode; it
                must stay as it is.

        Returns:
            A network of any structure, which the plugin's record can build again (``final_network``); the default is
            ``model``. It is evaluated, and kept beside the last checkpoint.
        """

    @hookspec
    def begin_run(self, folder: Path, config: Mapping[str, Any], epochs_done: int) -> None:
        """Hear that training begins or goes on. Called once, before the first step; all implementations are called.

        Args:
            folder: the run's folder, which exists; if this fails as a new run begins, it is removed.
            config: every option by name, read-only.
            epochs_done: epochs that a resumed run has behind it; what was observed of later ones is made again.
        """

    @hookspec
    def finish_run(self, summary: Mapping[str, Any]) -> None:
        """Hear that the run is finished. Called once, after its last file; all implementations are called.

        Args:
            summary: what ``summary.json`` holds, read-only.
        """

    @hookspec
    def end_run(self, error: BaseException | None) -> None:
        """Hear that the run is over, finished or not. Called once, after all else; all implementations are called.

        The place to close what `begin_run` opened. It may come without `begin_run`, if that of another failed; and each
        is called though another fails, which is a warning if the run is finished.

        Args:
            error: what ended it, an interrupt too; None for a finished run.
        """

    @hookspec
    def observe_epoch(self, metrics: Mapping[str, Any], samples: Mapping[str, np.ndarray]) -> None:
        """Hear of a finished epoch. Called between steps, after every epoch; all implementations are called.

        Args:
            metrics: the epoch's line of ``metrics.jsonl``, read-only.
            samples: what is known of each training example after this epoch, as ``samples.safetensors`` has it at the
                end, a read-only copy: (N,) each. It has true labels, so a method, loss or component must not take it.
        """

    @hookspec
    def observe_step(self, done: int, total: int) -> None:
        """Hear of a finished step, without values. All implementations are called, between steps.

        Args:
            done: steps finished since the run began.
            total: steps of the whole run.
        """
