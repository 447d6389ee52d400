"""From signals to an audit: probabilities, suggestions, and how many labels are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np

from reweight_audit.audited_run import AuditedRun
from reweight_audit.calibration import from_known, from_two_groups, shares
from reweight_audit.records import Audit, Signal
from reweight_audit.signals import Known, against, figures, other_class
from reweight_core import noise_estimate


@attrs.frozen(eq=False)
class Judged:
    """The examples that are judged; the attributes are those of `Audit`.

    Attributes:
        logits: what each network says of them, (K, N, C): together they say what an example should be, and the last,
            which knows least of its label, whether there is another at all.
    """

    ids: np.ndarray
    names: Sequence[str]
    given: np.ndarray
    true: np.ndarray
    planted: np.ndarray
    weights: np.ndarray
    logits: np.ndarray


def ranked(
    run: Path,
    fingerprint: str,
    classes: Sequence[str],
    examples: Judged,
    signals: Sequence[Signal],
    known: Mapping[str, Known],
    calibrated: str | None,
) -> Audit:
    """Make an audit of signals.

    Args:
        run: the run that judges.
        fingerprint: of its data.
        classes: names of the classes.
        examples: what is judged.
        signals: of them, the one that ranks them first.
        known: what measures each signal, by name.
        calibrated: what the probabilities are calibrated by, in words; None if nothing is known of the first signal.
    """
    users, given, best = ~examples.planted, examples.given, signals[0]
    if best.name in known:
        probability, draws = from_known(best.values, given, users, known[best.name])
    else:
        probability, draws = from_two_groups(best.values), None
    other = other_class(examples.logits, given)
    matrix = np.zeros((len(classes), len(classes)))
    np.add.at(matrix, (other[users], given[users]), probability[users])
    np.add.at(matrix, (given[users], given[users]), 1 - probability[users])
    *of_classes, of_all = shares(probability, draws, [*(users & (given == c) for c in range(len(classes))), users])
    if (examples.true[users] >= 0).all():
        wrong = (examples.true != given)[users]
        signals = [attrs.evolve(signal, known=figures(signal.values[users], wrong)) for signal in signals]
    return Audit(
        run=str(run.absolute()),
        fingerprint=fingerprint,
        classes=tuple(classes),
        ids=examples.ids,
        names=tuple(examples.names),
        given=given,
        suggested=np.where((probability >= 0.5) | (examples.logits[-1].argmax(1) != given), other, given),
        probability=probability,
        calibrated=calibrated,
        signals=tuple(signals),
        matrix=matrix,
        wrong=of_classes,
        wrong_of_all=of_all,
        planted=examples.planted,
        true=examples.true,
        weights=examples.weights,
    )


def known_of(run: AuditedRun, logits: np.ndarray, labels: np.ndarray) -> Known:
    """Return what networks that did not learn from clean examples say against their labels, and against wrong ones.

    Args:
        run: whose noise the wrong labels are drawn from, as it is estimated.
        logits: of the clean examples, (k, C).
        labels: their labels, (k,).
    """
    meta = run.data.meta
    assert meta is not None, "there are clean examples"
    estimate = noise_estimate(run.data.train, meta, len(run.data.dataset.classes))
    rng = np.random.RandomState(run.config.seed)
    drawn = np.array([rng.choice(len(estimate), p=estimate[label]) for label in labels])
    return Known(against(logits, drawn), against(logits, labels))


def of_clean(count: int) -> str:
    """Say what `known_of` calibrates by."""
    return f"{count} clean examples, with their labels and with wrong ones"
