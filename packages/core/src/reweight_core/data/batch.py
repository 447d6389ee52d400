"""Examples as a step sees them."""

from __future__ import annotations

from typing import Literal, Protocol

import attrs
import torch
from torch import Tensor

from reweight_core.data.inputs import Inputs, floating_type
from reweight_core.machine.together import Share

Source = Literal["train", "meta", "both"]
"""What examples are taken from: the training set with its observed labels, the clean meta set, or the two together."""


@attrs.frozen(eq=False)
class Batch:
    """Examples as a step sees them.

    Attributes:
        ids: positions in their set, int64 (n,).
        inputs: what the network takes: augmented, normalised images (n, channels, height, width); in a loop of the
            user's own a structure of tensors (`Inputs`).
        labels: observed labels, int64 (n,).
        targets: what the loss compares with, rows (n, C) of sum 1; None for the labels as they are.
        source: what it was taken from: ``train``, ``meta``, or ``both``.
        trusted: which examples are trusted ones, bool (n,): those of the meta set in a stage on both, and those of
            the training set that are with ``--meta-use both``; None where none can be.
        factors: weights that the user gave them (``--weights``), (n,), or None. Core multiplies the rows of D' by them,
            in the virtual step and in the real one; plugins need not mind.
        share: which part of the step's whole batch this is, in a run of several processes; None for all of it.
    """

    ids: Tensor
    inputs: Inputs
    labels: Tensor
    targets: Tensor | None = None
    source: Source = "train"
    trusted: Tensor | None = None
    factors: Tensor | None = None
    share: Share | None = None

    @property
    def n(self) -> int:
        """Number of examples in the step's whole batch, all processes together."""
        return len(self.ids) if self.share is None else self.share.n

    def part(self, whole: Tensor) -> Tensor:
        """Return this process's rows of what was made for the whole batch; with one process all of them."""
        return whole if self.share is None else self.share.of(whole)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return labels (n,) as rows (n, C)."""
    # comparing with a range does what F.one_hot does, without its reading of the labels' maximum
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).to(dtype)


def target_rows(batch: Batch, num_classes: int) -> Tensor:
    """Return the targets of a batch as rows (n, C), of the labels if it has no others."""
    if batch.targets is not None:
        return batch.targets
    return one_hot(batch.labels, num_classes, floating_type(batch.inputs))


class BatchSource(Protocol):
    """Something that meta batches come from, in place of a set of examples that is gone through in random order."""

    def draw_batch(self) -> Batch:
        """Give the meta batch of a step. Called inside the step; its size is always the same."""
