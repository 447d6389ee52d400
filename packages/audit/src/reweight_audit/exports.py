"""An audit for other programs: Label Studio, FiftyOne, and data frames with the columns of cleanlab."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from reweight_audit.records import Audit
from reweight_core import UserError, write_text

if TYPE_CHECKING:
    import pandas


def label_studio(audit: Audit, files: Sequence[str]) -> list[dict[str, Any]]:
    """Return tasks to import into Label Studio, the most suspicious first, with the suggested label as its prediction.

    The score of a prediction is the probability that the given label is right: tasks are sorted by the smallest there.
    Images are served from local files, relative to the data's folder; the labeling interface is that of image
    classification (``choice``, ``image``).
    """
    return [
        {
            "data": {
                "image": f"/data/local-files/?d={quote(files[i])}",
                "given_label": audit.classes[audit.given[i]],
                "probability_wrong": round(float(audit.probability[i]), 4),
            },
            "predictions": [
                {
                    "model_version": "reweight audit",
                    "score": round(1 - float(audit.probability[i]), 4),
                    "result": [
                        {
                            "from_name": "choice",
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [audit.classes[audit.suggested[i]]]},
                        }
                    ],
                }
            ],
        }
        for i in audit.order()
    ]


def fiftyone(audit: Audit, files: Sequence[str]) -> dict[str, Any]:
    """Return the labels of a FiftyOneImageClassificationDataset, whose ``data_path`` is the data's folder.

    The confidence is the probability that the given label is right; the suggested one is an attribute.
    """
    labels = {
        str(PurePosixPath(files[i]).with_suffix("")): {
            "label": audit.classes[audit.given[i]],
            "confidence": round(1 - float(audit.probability[i]), 4),
            "attributes": {"suggested_label": audit.classes[audit.suggested[i]]},
        }
        for i in audit.order()
    }
    if len(labels) < len(audit.order()):
        raise UserError(
            "--fiftyone: two images have names that differ in their endings alone, and its labels leave these out"
        )
    return {"classes": list(audit.classes), "labels": labels}


EXPORTS: Mapping[str, Callable[[Audit, Sequence[str]], Any]] = {"label-studio": label_studio, "fiftyone": fiftyone}
"""By the option that asks for it."""


def write_export(kind: str, path: Path, audit: Audit, files: Sequence[str]) -> None:
    """Write an audit for another program.

    Args:
        kind: a name of `EXPORTS`.
        path: the file.
        audit: what was found.
        files: the image of each example, relative to the folder of the data, (N,).

    Raises:
        UserError: if the file cannot be written.
    """
    content = EXPORTS[kind](audit, files)
    try:
        write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"--{kind} {path}: {error}") from error


def to_frame(audit: Audit) -> pandas.DataFrame:
    """Return a line for each of the user's training examples, in their order, with the columns of cleanlab.

    These are ``is_label_issue`` (a wrong label is likelier than not), ``label_score`` (probability that the given label
    is right), ``given_label`` and ``predicted_label`` (the suggested one), by class index, and by name.

    Raises:
        UserError: if pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError("a data frame needs pandas: pip install 'reweight-audit[frames]'") from None
    users = np.flatnonzero(~audit.planted).tolist()
    return pandas.DataFrame(
        {
            "is_label_issue": audit.probability[users] >= 0.5,
            "label_score": 1 - audit.probability[users],
            "given_label": audit.given[users],
            "predicted_label": audit.suggested[users],
            "given_name": [audit.classes[c] for c in audit.given[users]],
            "predicted_name": [audit.classes[c] for c in audit.suggested[users]],
        },
        index=[audit.names[i] for i in users],
    )
