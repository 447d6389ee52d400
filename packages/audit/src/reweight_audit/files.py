"""An audit in files: all of it as JSON, one line an example as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from reweight_audit.corrections import DROPPED, Corrections
from reweight_audit.records import Audit, Share, Signal
from reweight_core import UserError, write_text, written_whole

FORMAT = 1
NAME = "audit.json"
"""File of an audit in the folder of its run."""

COLUMNS = ("ids", "given", "suggested", "probability", "planted", "true", "weights")


def values_of(audit: Audit) -> dict[str, Any]:
    """Return an audit as JSON values; lists of examples are in the order of the training set."""
    return {
        "format": FORMAT,
        "run": audit.run,
        "fingerprint": audit.fingerprint,
        "classes": list(audit.classes),
        "calibrated": audit.calibrated,
        "wrong_of_all": attrs.asdict(audit.wrong_of_all),
        "wrong": [attrs.asdict(share) for share in audit.wrong],
        "matrix": audit.matrix.tolist(),
        "names": list(audit.names),
        **{name: getattr(audit, name).tolist() for name in COLUMNS},
        "signals": [
            {**attrs.asdict(signal, filter=attrs.filters.exclude("values")), "values": signal.values.tolist()}
            for signal in audit.signals
        ],
    }


def write_audit(path: Path, audit: Audit) -> None:
    """Write an audit as JSON.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        write_text(path, json.dumps(values_of(audit)) + "\n")
    except OSError as error:
        raise UserError(f"{path}: what was found cannot be kept for reweight apply: {error}") from error


def read_audit(path: Path) -> Audit:
    """Read an audit back: a file, or the folder of an audited run.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    file = path / NAME if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path}: has not been audited; run reweight audit {path}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is not {FORMAT}")
        columns = {name: np.array(content[name]) for name in COLUMNS}
        audit = Audit(
            run=content["run"],
            fingerprint=content["fingerprint"],
            classes=tuple(content["classes"]),
            names=tuple(content["names"]),
            calibrated=content["calibrated"],
            signals=tuple(Signal(**{**of, "values": np.array(of["values"], float)}) for of in content["signals"]),
            matrix=np.array(content["matrix"], float),
            wrong=tuple(Share(**share) for share in content["wrong"]),
            wrong_of_all=Share(**content["wrong_of_all"]),
            **columns,
        )
        _check(audit)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not an audit that can be read ({error}); run reweight audit again") from error
    return audit


def _check(audit: Audit) -> None:
    """Raise `ValueError` if what was read cannot be an audit."""
    lengths = {
        len(audit.names),
        *(len(getattr(audit, name)) for name in COLUMNS),
        *(len(s.values) for s in audit.signals),
    }
    if len(lengths) > 1 or not audit.signals:
        raise ValueError("lists of examples differ in length")
    kinds = {
        "ids": "i",
        "given": "i",
        "suggested": "i",
        "true": "i",
        "planted": "b",
        "probability": "f",
        "weights": "f",
    }
    for name, kind in kinds.items():
        column = getattr(audit, name)
        if column.ndim != 1 or column.dtype.kind != kind:
            raise ValueError(f"{name} is no list of such values")
    for name, lowest in (("given", 0), ("suggested", 0), ("true", -1)):
        column = getattr(audit, name)
        if column.min() < lowest or column.max() >= len(audit.classes):
            raise ValueError(f"{name} has what is no class")
    if not ((audit.probability >= 0) & (audit.probability <= 1)).all():
        raise ValueError("probability is outside 0..1")
    if not all(isinstance(name, str) for name in (audit.run, audit.fingerprint, *audit.names, *audit.classes)):
        raise ValueError("a name is no text")


def write_csv(path: Path, audit: Audit) -> None:
    """Write a line for each example, the most suspicious first.

    Raises:
        UserError: if the file cannot be written; an older one then stays as it was.
    """
    has_truth = bool((audit.true >= 0).all())
    try:
        with written_whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            signals = [signal.name for signal in audit.signals]
            head = ["name", "id", "given_label", "suggested_label", "probability_wrong", *signals]
            lines.writerow([*head, "true_label"] if has_truth else head)
            for i in audit.order():
                line = [audit.names[i], audit.ids[i], audit.classes[audit.given[i]], audit.classes[audit.suggested[i]]]
                line += [f"{audit.probability[i]:.4f}", *(f"{signal.values[i]:.6g}" for signal in audit.signals)]
                lines.writerow([*line, audit.classes[audit.true[i]]] if has_truth else line)
    except OSError as error:
        raise UserError(f"--csv {path}: {error}") from error


def write_weights(path: Path, audit: Audit, weights: np.ndarray) -> None:
    """Write a weight for each of the user's training examples, for ``reweight train --weights``.

    Args:
        path: the file.
        audit: what was found.
        weights: of its examples, from 0 on, (N,).

    Raises:
        UserError: if the file cannot be written; an older one then stays as it was.
    """
    try:
        with written_whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(["id", "name", "weight"])
            lines.writerows(
                [audit.ids[i], audit.names[i], f"{weights[i]:.6g}"] for i in np.flatnonzero(~audit.planted).tolist()
            )
    except OSError as error:
        raise UserError(f"--weights {path}: {error}") from error


def write_corrections(path: Path, audit: Audit, done: Corrections) -> None:
    """Write a line for each example that was relabelled, left out, or decided on by a person.

    Args:
        path: the file.
        audit: what was found.
        done: what became of the examples.

    Raises:
        UserError: if the file cannot be written.
    """
    touched = np.flatnonzero(~audit.planted & (done.decided | (done.labels != audit.given))).tolist()
    try:
        with written_whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(["name", "id", "given_label", "corrected_label", "probability_wrong", "by"])
            for i in touched:
                after = "" if done.labels[i] == DROPPED else audit.classes[done.labels[i]]
                line = [audit.names[i], audit.ids[i], audit.classes[audit.given[i]], after]
                line += [f"{audit.probability[i]:.4f}", "person" if done.decided[i] else "threshold"]
                lines.writerow(line)
    except OSError as error:
        raise UserError(f"{path}: {error}; the corrected data beside it are whole") from error
