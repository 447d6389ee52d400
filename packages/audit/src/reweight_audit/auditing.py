"""Auditing a run: which of its training labels are probably wrong, and what they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from reweight_audit.audited_run import AuditedRun
from reweight_audit.calibration import FEWEST
from reweight_audit.out_of_sample import NO, OutOfSample, choose, predictions_of
from reweight_audit.ranking import Judged, known_of, of_clean, ranked
from reweight_audit.records import Audit, Signal
from reweight_audit.signals import OUT_OF_SAMPLE, Known, measured, signals_of
from reweight_core import UserError, nearest


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
            less than a minute, or half of what the run took, and there are trusted examples enough.
        by: signal by which they are ranked; None for what is best for this run.
        progress: is told what is done next.

    Raises:
        UserError: if the run is not finished, its data are gone, or it has no such signal.
    """
    return audit_of(AuditedRun.read(Path(run)), out_of_sample, by, progress)


def audit_of(audited: AuditedRun, out_of_sample: str, by: str | None, progress: Callable[[str], object]) -> Audit:
    """Do what `audit` does with a run that was read."""
    how = choose(out_of_sample, audited)
    further = None if how == NO else predictions_of(audited, how, progress)
    logits = audited.logits()
    own = signals_of(audited.samples, logits, None if further is None else further.train)
    known = _known(audited, own, further)
    signals = measured(own, known)
    if by is not None:
        signals = _with_first(signals, by, audited.folder)
    data, samples = audited.trained_on, audited.samples
    examples = Judged(
        ids=data.ids,
        names=tuple(samples.names),
        given=data.train.labels,
        true=data.true_labels,
        planted=audited.planted | audited.trusted,
        weights=samples.columns["mean_weight"].astype(np.float64),
        logits=logits[None] if further is None else np.stack([logits, further.train]),
    )
    words = _words(signals[0], known, int(audited.planted.sum()))
    return ranked(audited.folder, data.fingerprint, data.dataset.classes, examples, signals, known, words)


def _known(run: AuditedRun, signals: Sequence[Signal], further: OutOfSample | None) -> dict[str, Known]:
    """Return what is known of the signals: of planted examples; of clean ones, for networks that did not get them."""
    labels, truth = run.trained_on.train.labels, run.trained_on.true_labels
    wrong, right = run.planted & (labels != truth), run.planted & (labels == truth)
    found = {}
    if wrong.sum() >= FEWEST and right.sum() >= FEWEST:
        found = {signal.name: Known(signal.values[wrong], signal.values[right]) for signal in signals}
    if further is not None and len(further.labels) >= FEWEST:
        found[OUT_OF_SAMPLE] = known_of(run, further.clean, further.labels)
    return found


def _with_first(signals: Sequence[Signal], name: str, folder: Path) -> list[Signal]:
    names = [signal.name for signal in signals]
    if name not in names:
        raise UserError(f"--by {name}: {folder} has no such signal{nearest(name, names)}; it has {', '.join(names)}")
    return sorted(signals, key=lambda signal: signal.name != name)


def _words(best: Signal, known: Mapping[str, Known], planted: int) -> str | None:
    """Say how the probabilities were calibrated."""
    if best.name not in known:
        return None
    if best.name == OUT_OF_SAMPLE:
        return of_clean(len(known[best.name].right))
    return f"{planted} planted examples, every second one with a wrong label"
