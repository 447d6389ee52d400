"""Auditing a run: which of its training labels are probably wrong, and what they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np

from reweight_audit.audited_run import AuditedRun
from reweight_audit.calibration import FEWEST, from_known, from_two_groups, shares
from reweight_audit.out_of_sample import NO, OutOfSample, choose, predictions_of
from reweight_audit.records import Audit, Signal
from reweight_audit.signals import OUT_OF_SAMPLE, Known, against, figures, measured, other_class, signals_of
from reweight_core import UserError, nearest, noise_estimate


def audit(
    run: Path | str,
    *,
    out_of_sample: str = "auto",
    by: str | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> Audit:
    """Rank the training examples of a finished run by how likely their label is wrong (``reweight audit``).

    Args:
        run: its folder.
        out_of_sample: ``trusted`` or a number of folds to train further networks, none of which learns from the
            examples that it judges (`reweight_audit.out_of_sample`); ``no``; or ``auto``: ``trusted`` where that takes
            seconds and there are trusted examples enough.
        by: signal by which they are ranked; None for what is best for this run.
        progress: is told what is done next.

    Raises:
        UserError: if the run is not finished, its data are gone, or it has no such signal.
    """
    audited = AuditedRun.read(Path(run))
    how = choose(out_of_sample, audited)
    further = None if how == NO else predictions_of(audited, how, progress)
    logits = audited.logits()
    own = signals_of(audited.samples, logits, None if further is None else further.train)
    known = _known(audited, own, further)
    signals = measured(own, known)
    if by is not None:
        signals = _with_first(signals, by, audited.folder)
    return _audit_of(audited, signals, known, logits if further is None else further.train)


def _known(run: AuditedRun, signals: Sequence[Signal], further: OutOfSample | None) -> dict[str, Known]:
    """Return what is known of the signals: of planted examples; of clean ones, for networks that did not get them."""
    labels, truth = run.trained_on.train.labels, run.trained_on.true_labels
    wrong, right = run.planted & (labels != truth), run.planted & (labels == truth)
    found = {}
    if wrong.sum() >= FEWEST and right.sum() >= FEWEST:
        found = {signal.name: Known(signal.values[wrong], signal.values[right]) for signal in signals}
    meta = run.trained_on.meta
    if further is not None and meta is not None and len(meta) >= FEWEST:
        estimate = noise_estimate(run.data.train, meta, len(run.data.dataset.classes))
        rng = np.random.RandomState(run.config.seed)
        drawn = np.array([rng.choice(len(estimate), p=estimate[label]) for label in meta.labels])
        found[OUT_OF_SAMPLE] = Known(against(further.meta, drawn), against(further.meta, meta.labels))
    return found


def _with_first(signals: Sequence[Signal], name: str, folder: Path) -> list[Signal]:
    names = [signal.name for signal in signals]
    if name not in names:
        raise UserError(f"--by {name}: {folder} has no such signal{nearest(name, names)}; it has {', '.join(names)}")
    return sorted(signals, key=lambda signal: signal.name != name)


def _audit_of(run: AuditedRun, signals: Sequence[Signal], known: Mapping[str, Known], logits: np.ndarray) -> Audit:
    data = run.trained_on
    labels, classes = data.train.labels, len(data.dataset.classes)
    users = ~(run.planted | run.trusted)
    best = signals[0]
    if best.name in known:
        of_known = known[best.name]
        probability, draws = from_known(best.values, of_known.wrong, of_known.right)
    else:
        probability, draws = from_two_groups(best.values), None
    # nobody doubts a trusted label
    probability = np.where(run.trusted, 0.0, probability)
    other = other_class(logits, labels)
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (other[users], labels[users]), probability[users])
    np.add.at(matrix, (labels[users], labels[users]), 1 - probability[users])
    groups = [users & (labels == c) for c in range(classes)]
    *of_classes, of_all = shares(probability, draws, [*groups, users])
    corrupted = data.corrupted
    if corrupted is not None:
        signals = [attrs.evolve(s, known=figures(s.values[users], corrupted[users])) for s in signals]
    return Audit(
        run=str(run.folder.absolute()),
        fingerprint=run.data.fingerprint,
        classes=tuple(data.dataset.classes),
        ids=data.ids,
        names=tuple(run.samples.names),
        given=labels,
        suggested=np.where((probability >= 0.5) | (logits.argmax(1) != labels), other, labels),
        probability=probability,
        calibrated=_words(best, known, int(run.planted.sum())),
        signals=tuple(signals),
        matrix=matrix,
        wrong=of_classes,
        wrong_of_all=of_all,
        planted=run.planted | run.trusted,
        true=data.true_labels,
        weights=run.samples.columns["mean_weight"].astype(np.float64),
    )


def _words(best: Signal, known: Mapping[str, Known], planted: int) -> str | None:
    """Say how the probabilities were calibrated."""
    if best.name not in known:
        return None
    if best.name == OUT_OF_SAMPLE:
        return f"{len(known[best.name].right)} clean examples, with their labels and with wrong ones"
    return f"{planted} planted examples, every second one with a wrong label"
