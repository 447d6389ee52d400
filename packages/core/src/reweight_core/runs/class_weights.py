"""The weights of the classes in a finished run, for another trainer too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reweight_core.errors import UserError
from reweight_core.runs.samples import read_samples


def class_weights(run: Path) -> dict[str, Any]:
    """Average the recorded weights of a finished run over the examples of each observed class.

    Args:
        run: the folder of the run.

    Returns:
        JSON values, by class in the order of the labels: ``classes``; ``examples``, those that were trained on, without
        the trusted ones of ``--meta-use both``, whose weight is not the method's; ``last_weights``, the means of their
        last recorded weights; ``mean_weights``, the means over the whole run; ``effective_examples``, (sum w)^2 /
        sum w^2 of the last weights; and ``by_name``, index and both weights by class name. A class without examples has
        the weight 1 of plain training.

    Raises:
        UserError: if the run is not finished, or trained on no example of its training set.
    """
    samples = read_samples(run)
    columns, classes = samples.columns, samples.classes
    seen = columns["visits"] > 0
    if "trusted" in columns:
        seen &= ~columns["trusted"]
    labels, last, mean = (columns[name][seen] for name in ("observed", "last_weight", "mean_weight"))
    if not len(labels):
        raise UserError(f"{run}: has no weights of examples: it trained on the clean meta set alone")

    def by_class(values: np.ndarray) -> np.ndarray:
        return np.bincount(labels, values.astype(np.float64), len(classes))

    examples = np.bincount(labels, minlength=len(classes))
    last_weights, mean_weights = (
        np.divide(by_class(values), examples, out=np.ones(len(classes)), where=examples > 0).tolist()
        for values in (last, mean)
    )
    squares = by_class(last.astype(np.float64) ** 2)
    effective = np.divide(by_class(last) ** 2, squares, out=np.zeros(len(classes)), where=squares > 0)
    rows = zip(classes, last_weights, mean_weights, strict=True)
    return {
        "classes": classes,
        "examples": examples.tolist(),
        "last_weights": last_weights,
        "mean_weights": mean_weights,
        "effective_examples": effective.tolist(),
        "by_name": {
            name: {"index": index, "last_weight": last_weight, "mean_weight": mean_weight}
            for index, (name, last_weight, mean_weight) in enumerate(rows)
        },
    }
