"""The stages of a run: what must be so before training begins, and how long they are."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import get_args

import numpy as np

from reweight_core.config.compatibility import GIVE_CLEAN
from reweight_core.data.batch import BatchSource
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import batch_sizes
from reweight_core.data.seeds import epoch_order
from reweight_core.engine.stage import Stage, Start
from reweight_core.errors import PluginError, UserError
from reweight_core.plugins.hooks import MethodHooks


def refuse_stages(
    hooks: MethodHooks,
    per_example: Collection[str],
    stages: Sequence[Stage],
    train: Examples,
    meta: Examples | BatchSource | None,
    has_val_set: bool,
    meta_use: str,
) -> None:
    """Refuse stages that cannot be trained.

    Args:
        hooks: the plugins.
        per_example: options that choose a plugin which keeps state by position in the training set: ``--with relabel``.
        stages: what the plugins planned.
        train: training examples.
        meta: what meta batches come from, or None.
        has_val_set: whether there are validation examples.
        meta_use: ``--meta-use``.

    Raises:
        UserError: if the data lack what a stage needs, or a plugin has planned what cannot be.
    """
    planner = hooks.implementers("plan_stages") or "core"
    for number, stage in enumerate(stages):
        problem = _mistake(stage, number == 0, len(train))
        if problem is not None:
            raise PluginError(f"{planner}: planned stage '{stage.name}', which {problem}")
        if stage.source != "train" and meta is None and meta_use == "both":
            raise PluginError(
                f"--meta-use both: stage '{stage.name}' of {planner} trains on clean examples, and none are kept for "
                "it, because the plugin's record does not say that it needs them (needs_meta_set=True)"
            )
        if stage.source != "train" and meta is None:
            raise UserError(f"stage '{stage.name}' trains on clean examples, and there are none: {GIVE_CLEAN}")
        if stage.source != "train" and not isinstance(meta, Examples):
            raise UserError(
                f"stage '{stage.name}' trains on clean examples, but what {hooks.implementers('provide_meta_set')} "
                "provides as the meta set is no set of examples: they cannot be combined"
            )
        if stage.source != "train" and not stage.plain and meta_use == "both":
            raise UserError(
                f"--meta-use both: stage '{stage.name}' of {planner} trains on the clean examples itself, and would "
                "lose half of them: leave the option out"
            )
        if stage.start == "best" and not has_val_set:
            raise UserError(
                f"stage '{stage.name}' begins with the network that was best on the validation set, and there is "
                "none: give --val-size N, or --val-fold K/N"
            )
        if stage.start != "continue" and hooks.networks:
            raise UserError(
                f"stage '{stage.name}' of {planner} begins with another network, but the further network "
                f"'{next(iter(hooks.networks))}' would go on as it is: they cannot be combined"
            )
        for choice in per_example:
            if stage.source != "train" and not stage.plain:
                raise UserError(
                    f"{choice}: keeps what it learns by training example, but stage '{stage.name}' of {planner} trains "
                    "on clean examples"
                )


def _mistake(stage: Stage, first: bool, train_size: int) -> str | None:
    """Say what no stage may be like, if this one is."""
    length = stage.epochs if stage.steps is None else stage.steps
    if not isinstance(length, int) or length < 1:
        return f"has {length} {'epochs' if stage.steps is None else 'steps'}; it must be a whole number above 0"
    if not isinstance(stage.lr, int | float) or not 0 <= stage.lr < math.inf:
        return f"has the rate {stage.lr}; it must be a number from 0 on"
    if stage.schedule is not None and not callable(stage.schedule):
        return f"has the schedule {stage.schedule!r}; it must be a function of the epochs that are done, or None"
    if stage.start not in get_args(Start):
        return f"has the start '{stage.start}'; it must be {' or '.join(get_args(Start))}"
    if first and stage.start == "best":
        return "begins with the best network before there is one"
    ids = stage.ids
    if ids is None:
        return None
    if stage.source != "train":
        return f"has ids, which are positions in the training set, and the source '{stage.source}'"
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int64 or ids.ndim != 1 or len(ids) < 2:
        return "has ids that are no int64 array (k,) of at least 2 positions"
    if ((ids < 0) | (ids >= train_size)).any():
        return f"has ids from {ids.min()} to {ids.max()}; they must be in 0..{train_size - 1}"
    return None


def source_size(stage: Stage, train: Examples, meta: Examples | BatchSource | None) -> int:
    """Return the number of examples in what a stage trains on; for the meta set alone, the training set's."""
    return len(train) + len(meta) if stage.source == "both" and isinstance(meta, Examples) else len(train)


def usual_sizes(stage: Stage, size: int, batch_size: int, processes: int = 1) -> list[int]:
    """Return the sizes of the batches of an epoch in the default order.

    Args:
        stage: the stage.
        size: number of examples of its source (`source_size`).
        batch_size: n.
        processes: how many processes share each batch.
    """
    return batch_sizes(epoch_length(stage, size), batch_size, processes)


def epoch_length(stage: Stage, size: int) -> int:
    """Return the number of examples in an epoch of a stage in the default order, whose source has `size`."""
    return size if stage.ids is None else len(stage.ids)


def check_sharing(
    stages: Sequence[Stage], lengths: Sequence[int], sizes: Sequence[Sequence[int]], processes: int
) -> None:
    """Refuse stages whose examples are too few for several processes; warn once of examples that they leave out.

    Args:
        stages: the stages.
        lengths: the numbers of examples in an epoch of each, in the default order.
        sizes: the sizes of the batches of such an epoch.
        processes: how many processes share each batch.

    Raises:
        UserError: if an epoch has no batch.
    """
    left_out = {}
    for stage, length, of_stage in zip(stages, lengths, sizes, strict=True):
        if stage.source != "meta":
            refuse_empty_epoch(stage.name, length, of_stage, processes)
            left_out[length - sum(of_stage)] = length
    most = max(left_out, default=0)
    # one is left out by one process, too
    if most > 1:
        warnings.warn(
            f"--processes {processes}: each epoch leaves out {most} of {left_out[most]} examples, others every time, "
            "which in a last batch were fewer than two a process; one process would train on them",
            stacklevel=3,
        )


def refuse_empty_epoch(stage: str, length: int, sizes: Sequence[int], processes: int) -> None:
    """Raise `UserError` if an epoch of a stage, of so many examples, has no batch because processes share them."""
    if not sizes:
        raise UserError(
            f"--processes {processes}: stage '{stage}' has {length} examples in an epoch, and each process needs two "
            "of every batch; give fewer"
        )


def length_in_epochs(stage: Stage, steps_per_epoch: int) -> float:
    """Return how many epochs a stage has, a fraction if it is given in steps."""
    return stage.epochs if stage.steps is None else stage.steps / steps_per_epoch


def usual_order(stage: Stage, seed: int, epoch: int) -> np.ndarray | None:
    """Return the default order of an epoch where a stage goes through some examples only, else None."""
    return None if stage.ids is None else stage.ids[epoch_order(seed, epoch, len(stage.ids))]
