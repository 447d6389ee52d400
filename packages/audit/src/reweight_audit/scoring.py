"""Judging the labels of examples that were not in training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from reweight_audit.audited_run import AuditedRun, logits_of
from reweight_audit.calibration import FEWEST
from reweight_audit.out_of_sample import learns_from_clean
from reweight_audit.ranking import Judged, known_of, of_clean, ranked
from reweight_audit.records import Audit, Signal
from reweight_audit.signals import MEANINGS, PREDICTION, Known, against
from reweight_core import UserError, load, nearest, predict, read_table

SMALLEST = 1e-30
"""Probability in place of 0, whose logarithm there is not."""


def score(run: Path | str, new: Path | str) -> Audit:
    """Rank labelled examples that a run was not trained on by how likely their label is wrong (``reweight score``).

    They are judged by the network that the run ended with. Its clean examples calibrate the probabilities, if it
    learned nothing from them.

    Args:
        run: the folder of a finished run.
        new: a folder with a folder of images for each class; or a CSV file with the columns of the run's table, or with
            file and label.

    Raises:
        UserError: if they cannot be read, a label is none of the run's classes, or the run's data are read by their
            plugin.
    """
    audited, path = AuditedRun.read(Path(run)), Path(new)
    classifier = load(audited.folder, audited.config.device)
    if classifier.manifest.reader is not None:
        raise UserError(
            f"{path}: score reads folders of images and CSV files; this run was trained on --data {audited.config.data}"
        )
    paths, labelled = _listed(path, classifier.takes_features)
    predictions = predict(classifier, paths)
    names, classes = predictions.names, list(predictions.classes)
    labels = np.array([_class_of(label, classes, where) for label, where in labelled or _by_folder(names)])
    logits = np.log(np.maximum(predictions.probabilities.astype(np.float64), SMALLEST))
    known = _known(audited)
    return ranked(
        audited.folder,
        _fingerprint(names, labels),
        classes,
        Judged(
            ids=np.arange(len(labels)),
            names=names,
            given=labels,
            true=np.full(len(labels), -1),
            planted=np.zeros(len(labels), dtype=bool),
            weights=np.ones(len(labels)),
            logits=logits[None],
        ),
        [Signal(PREDICTION, MEANINGS[PREDICTION], against(logits, labels), None if known is None else known.auroc())],
        {} if known is None else {PREDICTION: known},
        None if known is None else of_clean(len(known.right)),
    )


def _fingerprint(names: tuple[str, ...], labels: np.ndarray) -> str:
    """Return what tells these examples from others, and from those of the run."""
    return hashlib.sha256("\0".join(names).encode() + labels.astype("<i8").tobytes()).hexdigest()


def _listed(path: Path, takes_features: bool) -> tuple[list[Path], list[tuple[str, str]]]:
    """Return what is to be predicted for and, of a table, each row's label as it is written, and where."""
    if path.suffix.lower() != ".csv":
        return [path], []
    table = read_table(path)
    if "label" not in table.columns:
        raise table.lacks("label", ", and labels are what is judged")
    labels = [(row["label"], table.where(index)) for index, row in enumerate(table.rows)]
    if takes_features:
        return [path], labels
    if "file" not in table.columns:
        raise table.lacks("file", ", and the run was trained on images")
    return [path.parent / row["file"] for row in table.rows], labels


def _by_folder(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the label of each image, the name of its folder, and where it is."""
    return [(Path(name).parent.name, name) for name in names]


def _class_of(label: str, classes: list[str], where: str) -> int:
    if label not in classes:
        raise UserError(
            f"{where}: '{label}' is none of the run's classes{nearest(label, classes)}; images lie in a folder for "
            "each class"
        )
    return classes.index(label)


def _known(run: AuditedRun) -> Known | None:
    """Return what the network says of clean examples that it learned nothing from, if there are enough."""
    meta, config = run.trained_on.meta, run.config
    if meta is None or len(meta) < FEWEST or learns_from_clean(run):
        return None
    logits = logits_of(load(run.folder, config.device).network, meta, run.data.dataset, config)
    return known_of(run, logits.astype(np.float64), meta.labels)
