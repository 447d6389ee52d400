"""The dataset of a run, put together from the inputs and the labels of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reweight_core import Dataset, FeatureRows, Split, Stored, column_statistics, refuse_unusable
from reweight_data_own.labels import Labels


def dataset_of(
    inputs: Mapping[str, np.ndarray | Stored],
    labels: Mapping[str, Labels],
    names: Mapping[str, tuple[str, ...] | None],
    **further: Any,
) -> Dataset:
    """Return the dataset of parts ``train``, ``test`` and ``meta``, as far as there are such.

    Where there are true labels too, training sees the others all the same; clean sets have the true ones.

    Args:
        inputs: of each part.
        labels: of each part, as class indices.
        names: of the examples of each part, if they have any.
        further: other fields of the dataset.
    """
    splits = {part: Split(images, labels[part].best, names.get(part)) for part, images in inputs.items()}
    observed = None if labels["train"].true is None else labels["train"].seen
    return Dataset(
        train=splits["train"],
        test=splits.get("test"),
        meta=splits.get("meta"),
        observed=observed,
        trusted=observed is not None,
        **further,
    )


def dataset_of_rows(
    rows: Mapping[str, FeatureRows],
    labels: Mapping[str, Labels],
    names: Mapping[str, tuple[str, ...] | None],
    classes: Sequence[str],
    representation: str | None = None,
) -> Dataset:
    """Return the dataset of parts that are rows of features, standardised by the training set; else as `dataset_of`.

    Raises:
        UserError: if a value is no finite number, or far too large.
    """
    mean, std = column_statistics(rows["train"], labels["train"].source)
    for part in rows.keys() - {"train"}:
        refuse_unusable(rows[part], mean, std, labels[part].source)
    return dataset_of(rows, labels, names, classes=tuple(classes), mean=mean, std=std, representation=representation)
