"""Applying an audit: corrected data, or weights, of what was found and decided."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np

from reweight_audit.audited_run import AuditedRun
from reweight_audit.corrected_data import refuse_taken, write_corrected
from reweight_audit.corrections import Corrections, corrections
from reweight_audit.files import read_audit, write_corrections, write_weights
from reweight_audit.records import Audit
from reweight_core import UserError, refuse_outputs

DROP = 0.5
"""Probability of a wrong label from which on an example is left out where nothing else is asked for."""


@attrs.frozen(eq=False)
class Applied:
    """What was done.

    Attributes:
        corrections: what became of each training example.
        options: the options of ``reweight train`` that read the corrected data, or None if none were written.
    """

    corrections: Corrections
    options: str | None


def apply(
    audit: Path | str,
    *,
    out: Path | str | None = None,
    weights: Path | str | None = None,
    relabel: float | None = None,
    drop: float | None = None,
    decisions: Path | str | None = None,
) -> Applied:
    """Make corrected data, or weights, of an audit (``reweight apply``).

    Args:
        audit: the folder of an audited run, or its audit.json.
        out: new folder for corrected data; None for none.
        weights: file for weights, 1 less the probability of a wrong label, or what was decided; None for none.
        relabel: probability from which on an example gets the suggested label; None for no such.
        drop: probability from which on it is left out; None for 0.5 where nothing else is asked for, else for no such.
        decisions: file of a person's decisions, which count before both; None for none.

    Raises:
        UserError: if the audit, its run or the decisions cannot be read, or the folder is taken.
    """
    refuse_outputs({"--weights": None if weights is None else Path(weights)})
    if out is not None:
        refuse_taken(Path(out))
    found = read_audit(Path(audit))
    if relabel is None and drop is None and decisions is None:
        drop = DROP
    done = corrections(found, relabel, drop, None if decisions is None else Path(decisions))
    options = None
    if out is not None:
        folder = _run_of(Path(audit), found)
        run = AuditedRun.read(folder)
        if run.data.fingerprint != found.fingerprint or len(done.labels) != len(run.trained_on.train):
            raise UserError(f"{audit}: is the audit of other data than those of {folder}")
        options = write_corrected(run, done.labels, Path(out))
        write_corrections(Path(out) / "corrections.csv", found, done)
    if weights is not None:
        # a weight cannot give another label
        kept = (done.labels == found.given).astype(float)
        values = np.where(done.decided, kept, kept * (1 - found.probability))
        write_weights(Path(weights), found, values)
    return Applied(done, options)


def _run_of(path: Path, audit: Audit) -> Path:
    """Return the run of an audit: the folder that it is in, or, of one that was copied elsewhere, where it was made."""
    folder = path if path.is_dir() else path.absolute().parent
    return folder if (folder / "config.json").exists() else Path(audit.run)
