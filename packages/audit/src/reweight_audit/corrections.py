"""What becomes of each training example: by thresholds, and by what a person decided."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from reweight_audit.records import Audit
from reweight_core import UserError, nearest

FORMAT = 1
"""Of a file of decisions."""

DROPPED = -1
"""In place of a label."""


@attrs.frozen(eq=False)
class Corrections:
    """What becomes of the training examples.

    Attributes:
        labels: of each, int64 (N,); `DROPPED` for one that is left out.
        relabelled: how many have another label than before.
        dropped: how many are left out.
        decided: which of all a person decided, bool (N,).
    """

    labels: np.ndarray
    relabelled: int
    dropped: int
    decided: np.ndarray


def corrections(
    audit: Audit, relabel: float | None = None, drop: float | None = None, decisions: Path | None = None
) -> Corrections:
    """Say what becomes of each training example.

    Args:
        audit: what was found.
        relabel: probability of a wrong label from which on an example gets the suggested one; None for no such.
        drop: probability from which on it is left out, if it is not relabelled; None for no such.
        decisions: file of a person's decisions, which count before both; None for none.

    Raises:
        UserError: if the file cannot be read, or is of another audit.
    """
    labels = audit.given.copy()
    users = ~audit.planted
    if drop is not None:
        labels[users & (audit.probability >= drop)] = DROPPED
    if relabel is not None:
        chosen = users & (audit.probability >= relabel) & (audit.suggested != audit.given)
        labels[chosen] = audit.suggested[chosen]
    decided = {} if decisions is None else read_decisions(decisions, audit)
    by_person = np.zeros(len(labels), dtype=bool)
    for position, label in decided.items():
        labels[position], by_person[position] = label, True
    dropped = labels == DROPPED
    lost = np.setdiff1d(audit.given[users], labels[users])
    if len(lost):
        raise UserError(
            f"no example of class '{audit.classes[lost[0]]}' would be left; give larger thresholds, or other decisions"
        )
    changed = ~dropped & (labels != audit.given)
    return Corrections(labels, int((changed & users).sum()), int((dropped & users).sum()), by_person)


def read_decisions(path: Path, audit: Audit) -> Mapping[int, int]:
    """Read a file of decisions: labels, or `DROPPED`, by position.

    Raises:
        UserError: if it cannot be read, is of another audit, or decides on what is not there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is not {FORMAT}")
        fingerprint, made = content["fingerprint"], list(content["decisions"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--decisions {path}: no file of decisions ({error}); export it from the report") from error
    if fingerprint != audit.fingerprint:
        raise UserError(f"--decisions {path}: the decisions are of another audit than that of {audit.run}")
    position = {int(identity): i for i, identity in enumerate(audit.ids) if not audit.planted[i]}
    found = {}
    for number, decision in enumerate(made, 1):
        try:
            found[position[decision["id"]]] = _label(decision, audit, position[decision["id"]])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"--decisions {path}: decision {number} cannot be read ({error})") from error
    return found


def _label(decision: Mapping[str, Any], audit: Audit, position: int) -> int:
    what = decision["decision"]
    if what == "keep":
        return int(audit.given[position])
    if what == "drop":
        return DROPPED
    if what != "relabel":
        raise ValueError(f"'{what}' is not keep, relabel or drop")
    if not isinstance(decision["label"], str) or decision["label"] not in audit.classes:
        raise ValueError(f"there is no class '{decision['label']}'{nearest(str(decision['label']), audit.classes)}")
    return list(audit.classes).index(decision["label"])
