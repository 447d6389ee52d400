"""Trusted examples among the training examples: the meta set, or a half of it, is trained on too."""

from __future__ import annotations

import attrs
import numpy as np

from reweight_core.data.prepare import PreparedData
from reweight_core.data.seeds import Stream, random_state
from reweight_core.errors import UserError


def with_trusted(data: PreparedData, seed: int, hold_out: bool) -> PreparedData:
    """Put trusted examples behind the training examples; what is left of the meta set stays it.

    The fingerprint stays that of the data as they were drawn: what is trained on follows from it and the options.

    Args:
        data: as prepared, with a meta set.
        seed: of the run, which the halves follow from.
        hold_out: whether a half of the meta set stays it, of each class the larger one; else nothing of it does.

    Raises:
        UserError: if no class has an example for each half.
    """
    meta = data.meta
    assert meta is not None, "runs without clean examples are refused"
    taken = _half(meta.labels, seed) if hold_out else np.ones(len(meta), dtype=bool)
    if not taken.any():
        raise UserError(
            "--meta-use both: no class has two clean examples, one to train on and one to look ahead at: give a larger "
            "--meta-size, or leave the option out"
        )
    trusted, left = meta.take(np.flatnonzero(taken)), np.flatnonzero(~taken)
    offset = 0 if data.dataset.meta is None else len(data.dataset.train)
    return attrs.evolve(
        data,
        train=data.train.followed_by(trusted),
        ids=np.concatenate([data.ids, offset + data.meta_ids[taken]]),
        true_labels=np.concatenate([data.true_labels, trusted.labels]),
        trusted=np.arange(len(data.train) + len(trusted)) >= len(data.train),
        planted=None if data.planted is None else np.append(data.planted, np.zeros(len(trusted), dtype=bool)),
        meta=meta.take(left) if len(left) else None,
        meta_ids=data.meta_ids[left],
    )


def _half(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return which examples are in the half that is trained on, bool (k,): of each class half, rounded down."""
    rng = random_state(seed, Stream.META_HALVES)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[rng.permutation(np.flatnonzero(labels == label))[1::2]] = True
    return chosen
