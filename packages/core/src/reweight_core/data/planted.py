"""Planted examples: clean ones put among the training examples, half of them with a wrong label.

What a run knows of them tells how well it finds wrong labels, where nobody knows which of the others are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np

from reweight_core.data.dataset import Split
from reweight_core.data.prepare import PreparedData
from reweight_core.data.rows import FeatureRows
from reweight_core.data.seeds import Stream, random_state
from reweight_core.errors import UserError

NEIGHBOURS = 10
"""Training examples beside a clean one whose labels say what it might have been called."""

SIDE = 8
"""Pixels of a side of an image that are compared, about."""

ROWS = 4096
"""Training examples whose distances are computed at a time; it changes the memory, not the result."""


_COMPARED = (np.ndarray, FeatureRows)
"""Images that are compared with each other: those in memory, and rows of features wherever they are."""


def with_planted(data: PreparedData, count: int, seed: int, leave: bool) -> PreparedData:
    """Move clean examples behind the training examples; every second one of each class gets a wrong label.

    The wrong label of an example of class i is drawn from `noise_estimate`, row i. The fingerprint stays that of the
    data as they were drawn: what is planted follows from it and the options.

    Args:
        data: as prepared, with a meta set.
        count: how many, as many of each class as of the others, or one more.
        seed: of the run.
        leave: whether the run has another use for clean examples, so that one of each class at least must be left.

    Raises:
        UserError: if there are not so many clean examples.
    """
    meta = data.meta
    assert meta is not None, "runs without clean examples are refused"
    needed = len(data.dataset.classes) if leave else 0
    if count > len(meta) - needed:
        why = f", and the run needs {needed} of them itself" if leave else ""
        raise UserError(f"--plant {count}: there are only {len(meta)} clean examples{why}; give fewer")
    rng = random_state(seed, Stream.PLANTED)
    taken = _in_turn(meta.labels, rng)[:count]
    estimate = noise_estimate(data.train, meta, len(data.dataset.classes))
    labels = meta.labels[taken].copy()
    for i in np.flatnonzero(_every_second(labels, rng)):
        labels[i] = rng.choice(len(data.dataset.classes), p=estimate[labels[i]])
    left = np.setdiff1d(np.arange(len(meta)), taken)
    offset = 0 if data.dataset.meta is None else len(data.dataset.train)
    planted = meta.take(taken)
    return attrs.evolve(
        data,
        train=data.train.followed_by(attrs.evolve(planted, labels=labels)),
        ids=np.concatenate([data.ids, offset + data.meta_ids[taken]]),
        true_labels=np.concatenate([data.true_labels, planted.labels]),
        planted=np.arange(len(data.train) + count) >= len(data.train),
        meta=meta.take(left) if len(left) else None,
        meta_ids=data.meta_ids[left],
    )


def _every_second(labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return every second example of each class, bool (k,); in half of the classes from the first one on."""
    chosen = np.zeros(len(labels), dtype=bool)
    for number, label in enumerate(rng.permutation(np.unique(labels))):
        chosen[np.flatnonzero(labels == label)[number % 2 :: 2]] = True
    return chosen


def _in_turn(labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return the positions of examples (k,), one of each class in turn for as long as it has any."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.arange(len(labels)) - np.repeat(first, counts)
    return by_class[np.argsort(turn, kind="stable")]


def noise_estimate(train: Split, clean: Split, classes: int) -> np.ndarray:
    """Estimate how wrong labels are distributed, from clean examples and the training examples that are like them.

    Row i counts the labels other than i among the nearest training examples of the clean ones of class i, and what
    share each class has of all training labels as one more example. Images that are read while training are not
    compared: their rows are those shares alone.

    Args:
        train: training examples.
        clean: clean examples.
        classes: number of classes C.

    Returns:
        Probability of each wrong label (column) for each true class (row), 0 on the diagonal, (C, C).
    """
    shares = np.bincount(train.labels, minlength=classes) / len(train)
    counts = np.tile(shares, (classes, 1))
    if isinstance(train.images, _COMPARED) and isinstance(clean.images, _COMPARED):
        near = train.labels[_nearest(train.images, clean.images)]
        np.add.at(counts, (np.repeat(clean.labels, near.shape[1]), near.ravel()), 1)
    np.fill_diagonal(counts, 0)
    # a class that nothing else is near to, and that all other labels are of
    counts[counts.sum(1) == 0] = 1
    np.fill_diagonal(counts, 0)
    found: np.ndarray = counts / counts.sum(1, keepdims=True)
    return found


def _nearest(images: np.ndarray | FeatureRows, queries: np.ndarray | FeatureRows) -> np.ndarray:
    """Return the positions of the images that are nearest to each query (q, k), by Euclidean distance.

    Each number of an example is taken relative to its mean and standard deviation over all.
    """
    mean = sum(rows.sum(0) for rows in _in_parts(images)) / len(images)
    std = np.sqrt(sum(((rows - mean) ** 2).sum(0) for rows in _in_parts(images)) / len(images))
    scale = 1 / np.where(std > 0, std, 1)
    wanted = ((np.concatenate([*_in_parts(queries)]) - mean) * scale).astype(np.float32)
    near, distances, start = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32), 0
    for part in _in_parts(images):
        rows = ((part - mean) * scale).astype(np.float32)
        further = np.broadcast_to(np.arange(start, start + len(rows)), (len(queries), len(rows)))
        near = np.concatenate([near, further], axis=1)
        distances = np.concatenate([distances, (rows**2).sum(1) - 2 * wanted @ rows.T], axis=1)
        k, start = min(NEIGHBOURS, near.shape[1]), start + len(rows)
        kept = np.argpartition(distances, k - 1, axis=1)[:, :k]
        near, distances = np.take_along_axis(near, kept, axis=1), np.take_along_axis(distances, kept, axis=1)
    return near


def _in_parts(images: np.ndarray | FeatureRows) -> Iterator[np.ndarray]:
    """Go through the numbers of images, `ROWS` of these at a time, float64 (n, numbers)."""
    # of large images, 8 by 8 pixels: what is alike as a whole is near
    thin = (slice(None), slice(None), *(slice(None, None, max(1, side // SIDE)) for side in images.shape[2:]))
    for start in range(0, len(images), ROWS):
        ids = np.arange(start, min(start + ROWS, len(images)))
        some = images.read(ids) if isinstance(images, FeatureRows) else images[start : start + ROWS]
        yield some[thin].reshape(len(ids), -1).astype(np.float64)
