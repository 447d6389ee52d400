"""Labels as users have them, whole numbers or texts, and the classes that they make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from reweight_core import UserError

LABEL_NAMES = ("label", "labels", "y")
TRUE_LABEL_NAMES = ("true_label", "true_labels")
"""What labels are called if no option says another name."""


@attrs.frozen(eq=False)
class Labels:
    """The labels of one part of a dataset.

    Attributes:
        seen: those that training sees, (N,): whole numbers or texts.
        true: the true ones, where they are known beside them, or None.
        source: where they are from, for messages.
    """

    seen: np.ndarray
    true: np.ndarray | None
    source: str

    @property
    def best(self) -> np.ndarray:
        """The true ones where these are known."""
        return self.seen if self.true is None else self.true


def checked(labels: np.ndarray, rows: int, source: str) -> np.ndarray:
    """Return labels as int64 or as texts.

    Args:
        labels: as they were read.
        rows: how many there must be.
        source: where they are from, for messages.

    Raises:
        UserError: if they are something else than whole numbers from 0 on or texts, or not one for each row.
    """
    if labels.ndim != 1:
        raise UserError(f"{source}: labels must be one for each row, not an array of shape {labels.shape}")
    if len(labels) != rows:
        raise UserError(f"{source}: has {len(labels)} labels for {rows} rows of features")
    if labels.dtype.kind == "U":
        empty = np.flatnonzero(np.char.strip(labels) == "")
        if len(empty):
            raise UserError(f"{source}, row {empty[0]}: the label is empty")
        return np.char.strip(labels)
    if labels.dtype.kind not in "iub":
        raise UserError(f"{source}: labels must be whole numbers or texts, not {labels.dtype}")
    whole = labels.astype(np.int64)
    negative = np.flatnonzero(whole < 0)
    if len(negative):
        raise UserError(
            f"{source}, row {negative[0]}: label {labels[negative[0]]} is negative; leave rows without a label out"
        )
    return whole


def alike(
    true: np.ndarray, stand_for: Sequence[str] | None, seen: np.ndarray, names: Sequence[str] | None, source: str
) -> np.ndarray:
    """Return true labels in the terms of those that training sees: numbers of the same classes, or texts.

    Args:
        true: the true labels (N,).
        stand_for: names of the classes that they are numbers of, or None.
        seen: those that training sees (N,).
        names: names of the classes that these are numbers of, or None.
        source: where the true labels are from, for messages.

    Raises:
        UserError: if one is none of the classes.
    """
    if stand_for is not None and stand_for != names and (names is not None or seen.dtype.kind == "U"):
        outside = np.flatnonzero(true >= len(stand_for))
        if len(outside):
            raise UserError(f"{source}, row {outside[0]}: {true[outside[0]]} is outside 0..{len(stand_for) - 1}")
        true = np.array(stand_for)[true]
    if names is None or true.dtype.kind != "U":
        return true
    strange = np.flatnonzero(~np.isin(true, names))
    if len(strange):
        known = ", ".join(names)
        raise UserError(f"{source}, row {strange[0]}: '{true[strange[0]]}' is none of the labels' classes ({known})")
    number_of = {name: number for number, name in enumerate(names)}
    return np.array([number_of[name] for name in true.tolist()], np.int64)


def index(parts: Mapping[str, Labels]) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Return the names of the classes, and the labels of each part as class indices, int64 (N,).

    Classes are the labels of the training set, in numeric order if all are numbers, else by name.

    Raises:
        UserError: if another part has a label that the training set lacks.
    """
    train = parts["train"]
    found = np.unique(train.seen if train.true is None else np.concatenate([_alike(train.seen, train), train.true]))
    if found.dtype.kind == "U" and all(re.fullmatch(r"[+-]?\d+", name) for name in found.tolist()):
        numbers = np.array([int(name) for name in found.tolist()])
        if numbers.min() < 0:
            label = found[numbers.argmin()]
            row = next(np.flatnonzero(some == label)[0] for some in (train.seen, train.best) if label in some)
            raise UserError(f"{train.source}, row {row}: label {label} is negative; leave rows without a label out")
        repeated = np.flatnonzero(np.bincount(np.unique(numbers, return_inverse=True)[1]) > 1)
        if len(repeated):
            raise UserError(f"{train.source}: two labels are the same number, {np.unique(numbers)[repeated[0]]}")
        order = np.argsort(numbers)
    else:
        order = np.arange(len(found))
    place = np.empty(len(found), np.int64)
    place[order] = np.arange(len(found))

    def indexed(labels: np.ndarray, part: Labels) -> np.ndarray:
        at = np.searchsorted(found, _alike(labels, train)).clip(max=len(found) - 1)
        strange = np.flatnonzero(found[at] != labels)
        if len(strange):
            raise UserError(
                f"{part.source}, row {strange[0]}: label '{labels[strange[0]]}' is none of the training set"
            )
        return place[at]

    names = tuple(str(name) for name in found[order].tolist())
    return names, {
        name: Labels(indexed(part.seen, part), None if part.true is None else indexed(part.true, part), part.source)
        for name, part in parts.items()
    }


def _alike(labels: np.ndarray, train: Labels) -> np.ndarray:
    if (labels.dtype.kind == "U") != (train.best.dtype.kind == "U"):
        raise UserError(f"{train.source}: some labels are whole numbers and others texts: make all of them one kind")
    return labels
