"""Predictions of each training example by networks that did not learn from it, kept beside the run."""

from __future__ import annotations

import hashlib
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from reweight_audit.audited_run import AuditedRun, logits_of
from reweight_core import (
    NoOptions,
    PreparedData,
    RunConfig,
    UserError,
    in_fold,
    registry,
    train,
    uses_clean_examples,
    written_whole,
)

NO, TRUSTED = "no", "trusted"
"""What asks for no further networks, and for networks of the trusted examples alone."""

TRUSTED_FOLDS = 3
"""Parts of the trusted examples, each of which is predicted by a network of the others."""

SMALL_INPUT = 1024
"""Numbers of an example up to which trusted examples alone train a linear network."""

PASSES = 150
"""Passes over the trusted examples alone, at most: so few are soon known by heart."""

FEW_SECONDS, OF_THE_RUN = 60, 0.5
"""Networks of trusted examples are trained unasked if they take less, or less of the run's own time."""


@attrs.frozen(eq=False)
class OutOfSample:
    """What networks that did not learn from the examples say of them.

    Attributes:
        train: logits of the training examples, float32 (N, C); those of several networks are averaged.
        clean: of clean examples, each by one network that did not get it, (M, C).
        labels: of these, int64 (M,).
    """

    train: np.ndarray
    clean: np.ndarray
    labels: np.ndarray


def choose(how: str, run: AuditedRun) -> str:
    """Return ``no``, ``trusted`` or a number of folds for what is asked for.

    Raises:
        UserError: if it is something else, or the run has too few examples for it.
    """
    classes, meta = len(run.data.dataset.classes), run.data.meta
    fewest = 0 if meta is None else int(np.bincount(meta.labels, minlength=classes).min())
    enough = fewest >= TRUSTED_FOLDS
    if how == "auto":
        return TRUSTED if enough and "clean-only" in registry.names("method") and _is_quick(run) else NO
    if how == TRUSTED and not enough:
        raise UserError(
            f"--out-of-sample trusted: {run.folder} has {fewest} trusted examples of one class, and {TRUSTED_FOLDS} of "
            "each are needed; give a number of folds, e.g. 5, or train it with more (--meta-size)"
        )
    if how in (NO, TRUSTED):
        return how
    if not how.isdecimal() or not 2 <= int(how) <= len(run.trained_on.train):
        raise UserError(f"--out-of-sample {how}: must be auto, no, trusted, or a number of folds from 2 on, e.g. 5")
    return how


def predictions_of(run: AuditedRun, by: str, progress: Callable[[str], object]) -> OutOfSample:
    """Train what is needed, or recall it if it is kept in the run's folder.

    Args:
        run: the run.
        by: a number of folds, or ``trusted`` (`by_folds`, `by_trusted`).
        progress: is told what is done next.

    Raises:
        UserError: if there are too few examples, or a training fails.
    """
    file = run.folder / f"audit-{by}.safetensors"
    # what is kept is of this run, whatever the folder is called
    made_by = np.frombuffer(hashlib.sha256((run.folder / "config.json").read_bytes()).digest(), np.uint8)
    if file.exists():
        try:
            kept = load_file(file)
            if np.array_equal(kept["made_by"], made_by) and len(kept["train"]) == len(run.trained_on.train):
                return OutOfSample(kept["train"], kept["clean"], kept["labels"])
        except (OSError, KeyError, SafetensorError):
            pass
        progress(f"{file} is damaged or of another run; it is made anew")
    found = by_trusted(run, progress) if by == TRUSTED else by_folds(run, int(by), progress)
    arrays = {"train": found.train, "clean": found.clean, "labels": found.labels, "made_by": made_by}
    try:
        with written_whole(file) as partial:
            save_file(arrays, partial)
    except OSError as error:
        progress(f"{file} cannot be written, so the next audit trains again ({error})")
    return found


def by_folds(run: AuditedRun, folds: int, progress: Callable[[str], object]) -> OutOfSample:
    """Train as the run did, on all parts of its training examples but one, in turn.

    Args:
        run: the run.
        folds: number of parts.
        progress: is told what is done next.
    """
    data, config = run.trained_on, run.config
    of_train = np.zeros((len(data.train), len(data.dataset.classes)), np.float32)
    of_clean = np.zeros((len(data.meta_ids), len(data.dataset.classes)), np.float32)
    # planted and trusted examples are among the training examples already
    options = attrs.evolve(config, plant=0, meta_use="look-ahead")
    for number in range(1, folds + 1):
        progress(f"training {number} of {folds}: without a part of the training set")
        held_out = in_fold(data.train.labels, (number, folds), config.seed)
        lost = np.setdiff1d(data.train.labels[held_out], data.train.labels[~held_out])
        if len(lost):
            classes = ", ".join(data.dataset.classes[c] for c in lost)
            progress(f"all examples labelled {classes} are in this part: no network that judges them knows the class")
        network = _trained(options, _without(data, held_out))
        of_train[held_out] = logits_of(network, data.train.take(np.flatnonzero(held_out)), data.dataset, config)
        if data.meta is not None:
            # by one network each, like the training examples: the mean of several is surer
            of_it = np.arange(len(data.meta)) % folds == number - 1
            of_clean[of_it] = logits_of(network, data.meta.take(np.flatnonzero(of_it)), data.dataset, config)
    if data.meta is None or learns_from_clean(run):
        return OutOfSample(of_train, of_clean[:0], np.zeros(0, np.int64))
    return OutOfSample(of_train, of_clean, data.meta.labels)


def _without(data: PreparedData, left_out: np.ndarray) -> PreparedData:
    """Return the data without some training examples."""
    rest = np.flatnonzero(~left_out)
    return attrs.evolve(
        data,
        train=data.train.take(rest),
        ids=data.ids[rest],
        true_labels=data.true_labels[rest],
        planted=None if data.planted is None else data.planted[rest],
        trusted=None if data.trusted is None else data.trusted[rest],
    )


def by_trusted(run: AuditedRun, progress: Callable[[str], object]) -> OutOfSample:
    """Train on the trusted examples alone, on all parts of them but one, in turn.

    A training example is judged by the mean of all these networks, a trusted one by the network that did not get it:
    what is measured by these is a little less than what the mean can do.

    Args:
        run: the run.
        progress: is told what is done next.
    """
    data, meta = run.data, run.data.meta
    assert meta is not None, "refused where there are no trusted examples"
    of_train = np.zeros((len(data.train), len(data.dataset.classes)), np.float32)
    of_clean = np.zeros((len(meta), len(data.dataset.classes)), np.float32)
    options = _for_trusted(run)
    for number in range(1, TRUSTED_FOLDS + 1):
        progress(f"training {number} of {TRUSTED_FOLDS}: on trusted examples alone")
        held_out = in_fold(meta.labels, (number, TRUSTED_FOLDS), run.config.seed)
        rest = np.flatnonzero(~held_out)
        network = _trained(options, attrs.evolve(data, meta=meta.take(rest), meta_ids=data.meta_ids[rest]))
        of_train += logits_of(network, data.train, data.dataset, run.config) / TRUSTED_FOLDS
        of_clean[held_out] = logits_of(network, meta.take(np.flatnonzero(held_out)), data.dataset, run.config)
    # what was planted or trained on too is behind the training examples, by its position in the dataset
    offset = 0 if data.dataset.meta is None else len(data.dataset.train)
    position = {int(offset + identity): i for i, identity in enumerate(data.meta_ids)}
    further = [position[int(identity)] for identity in run.trained_on.ids[len(data.train) :]]
    return OutOfSample(np.concatenate([of_train, of_clean[further]]), of_clean, meta.labels)


def learns_from_clean(run: AuditedRun) -> bool:
    """Return whether the method of a run, or a component, learns anything from its clean examples."""
    components = {name: registry.find("component", name) for name in run.config.with_}
    return uses_clean_examples(run.config, registry.find("method", run.config.method), components)


def _is_small(data: PreparedData) -> bool:
    """Return whether few trusted examples can do no better than a linear network."""
    return math.prod(data.dataset.input_shape) <= SMALL_INPUT


def _is_quick(run: AuditedRun) -> bool:
    """Return whether training on trusted examples alone takes seconds, or little as against the run itself."""
    if _is_small(run.data):
        return True
    options, of_run = _for_trusted(run), run.summary()
    assert options.steps is not None, "set for images"
    of_step = of_run["seconds_per_step"] * options.batch_size / min(run.config.batch_size, len(run.data.train))
    return bool(TRUSTED_FOLDS * options.steps * of_step <= max(FEW_SECONDS, OF_THE_RUN * of_run["seconds"]))


def _for_trusted(run: AuditedRun) -> RunConfig:
    """Return the options of a training on the trusted examples alone: small inputs have logistic regression."""
    config, trusted = run.config, len(run.data.meta_ids)
    if "clean-only" not in registry.names("method"):
        raise UserError("--out-of-sample trusted: needs the method 'clean-only': pip install reweight-method-l2rw")
    alone = attrs.evolve(
        config, method="clean-only", method_options=NoOptions(), with_=(), component_options=(), plant=0,
        meta_use="look-ahead", loss="cross-entropy", loss_options=NoOptions(), preset=None, weights=None,
        init_from=None, pretrained=False,
    )  # fmt: skip
    batch_size = min(config.batch_size, trusted)
    if _is_small(run.data):
        of_logistic_regression: dict[str, Any] = {
            "optimizer": "adam",
            "lr": 0.01,
            "weight_decay": 1 / trusted,
            "steps": 1000,
        }
        return attrs.evolve(alone, model="linear", head="linear", batch_size=batch_size, **of_logistic_regression)
    usual = config.steps or config.epochs * -(-len(run.data.train) // config.batch_size)
    steps = min(usual, PASSES * max(1, trusted // batch_size))
    return attrs.evolve(alone, steps=steps, batch_size=batch_size)


def _trained(config: RunConfig, data: PreparedData) -> nn.Module:
    """Train, and leave nothing but the network."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # the run has told what there is to be told
        warnings.simplefilter("ignore")
        options = attrs.evolve(
            config, out=Path(folder) / "run", observe=(), observer_options=(), checkpoint_every="never", patience=0,
            processes=1, sync_batchnorm=False,
        )  # fmt: skip
        return train(options, data=attrs.evolve(data, val=None, test=None)).model
