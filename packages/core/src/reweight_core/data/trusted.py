"""Trusted examples among the training examples: the meta set, or a half of it, is trained on too."""

from __future__ import annotations

import attrs
import numpy as np

from reweight_core.data.folds import in_fold
from reweight_core.data.prepare import PreparedData
from reweight_core.data.seeds import Stream
from reweight_core.errors import UserError


def with_trusted(data: PreparedData, seed: int, hold_out: bool) -> PreparedData:
    """Put trusted examples behind the training examples; what is left of the meta set stays it.

    The fingerprint stays that of the data as they were drawn: what is trained on follows from it and the options.

    Args:
        data: as prepared, with a meta set.
        seed: of the run, which the halves follow from.
        hold_out: whether a half of the meta set, by class, stays it; else nothing of it does.

    Raises:
        UserError: if the meta set is too small for halves.
    """
    meta = data.meta
    assert meta is not None, "runs without clean examples are refused"
    if hold_out and len(meta) < 4:
        raise UserError(f"--meta-use both: {len(meta)} clean examples cannot be cut into two halves of two or more")
    taken = np.ones(len(meta), dtype=bool)
    if hold_out:
        taken = in_fold(meta.labels, (1, 2), seed, Stream.META_HALVES)
    trusted, left = meta.take(np.flatnonzero(taken)), np.flatnonzero(~taken)
    offset = 0 if data.dataset.meta is None else len(data.dataset.train)
    return attrs.evolve(
        data,
        train=data.train.followed_by(trusted),
        ids=np.concatenate([data.ids, offset + data.meta_ids[taken]]),
        true_labels=np.concatenate([data.true_labels, trusted.labels]),
        trusted=np.arange(len(data.train) + len(trusted)) >= len(data.train),
        meta=meta.take(left) if len(left) else None,
        meta_ids=data.meta_ids[left],
    )
