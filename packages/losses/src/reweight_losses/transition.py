"""Transition matrices of label noise, T[i, j] = P(observed j | true i): given or estimated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reweight_core import UserError, registry
from reweight_losses.options import CorrectionConfig

DRAWS = 10_000
"""Labels drawn from each class, three times, to measure the matrix of a kind of noise, each entry to about 0.003."""

CHANCE = 0.05
"""How far the three may be apart by chance."""

ROUNDING = 1e-6
"""How far the sum of a row of a given matrix may be from 1."""

SMALLEST = 1e-12
"""What stands for an estimated probability of 0, so that no observed label is impossible."""


def given_matrix(config: CorrectionConfig, num_classes: int, flag: str) -> Tensor | None:
    """Return the matrix that the options give, double precision (C, C), or None if it is to be estimated.

    Args:
        config: the loss's options.
        num_classes: C.
        flag: how the loss's options begin, for messages: ``--forward``.

    Raises:
        UserError: if two matrices are given, or one that cannot be used.
    """
    if config.matrix is not None and config.noise is not None:
        raise UserError(f"{flag}-matrix and {flag}-noise exclude each other: give one")
    if config.matrix is not None:
        return read_matrix(config.matrix, num_classes, f"{flag}-matrix {config.matrix}")
    if config.noise is not None:
        return matrix_of_noise(config.noise, num_classes, f"{flag}-noise {config.noise}")
    return None


def read_matrix(path: Path, num_classes: int, where: str) -> Tensor:
    """Read a matrix from a file: JSON (a list of rows), or a line of numbers for each class, apart by commas or blanks.

    Raises:
        UserError: if it cannot be read, or if a row is no distribution over C classes.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            rows = json.loads(text)
        else:
            rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
        T = np.array(rows, dtype=np.float64)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: {error}; it must hold a row of numbers for each class") from None
    if T.shape != (num_classes, num_classes):
        raise UserError(f"{where}: has shape {T.shape}, but the data have {num_classes} classes")
    for c, row in enumerate(T):
        if not (row >= 0).all() or not abs(row.sum() - 1) <= ROUNDING:
            raise UserError(
                f"{where}: row {c + 1} must be a distribution (no negative number, sum 1; it is {row.sum():g})"
            )
    return torch.from_numpy(T)


def matrix_of_noise(text: str, num_classes: int, where: str) -> Tensor:
    """Return the matrix of a kind of noise, ``KIND:ARGUMENT`` as for ``--noise``: the shares of what it draws.

    Raises:
        UserError: if the noise cannot be drawn from labels alone.
    """
    kind, _, argument = text.partition(":")
    plugin = registry.find("noise", kind)
    if plugin.needs_images or plugin.needs_mask:
        raise UserError(f"{where}: this noise depends on the example, so that it has no matrix")
    corrupt, drawn = plugin.build(argument), []
    for seed in (0, 1, 2):
        # in random order, for kinds that corrupt a fixed number of all labels
        rng = np.random.RandomState(seed)
        labels = rng.permutation(np.repeat(np.arange(num_classes, dtype=np.int64), DRAWS))
        counts = np.bincount(labels * num_classes + corrupt(labels, num_classes, rng), minlength=num_classes**2)
        drawn.append(counts.reshape(num_classes, num_classes) / DRAWS)
    if np.ptp(drawn, axis=0).max() > CHANCE:
        raise UserError(
            f"{where}: this noise draws its own classes from the seed, so that it has no one matrix; name them in it "
            f"(background:RATE:CLASS), or give {where.split('-noise')[0]}-matrix"
        )
    return torch.from_numpy(np.mean(drawn, axis=0))


def estimate_matrix(probabilities: Tensor, percentile: float) -> Tensor:
    """Estimate T from what a network trained on the observed labels predicts (Patrini et al., CVPR 2017, Theorem 3).

    Row i is the prediction for the example that is likeliest of class i. Outliers come first in that order, so those
    above a percentile of p_i are left out.

    Args:
        probabilities: predictions for all training examples, (N, C).
        percentile: 0 to 100; 100 leaves nothing out.

    Returns:
        T (C, C), its rows of sum 1.
    """
    anchors = []
    for p in probabilities.T:
        ascending = p.argsort()
        anchors.append(ascending[max(int(percentile / 100 * len(p)), 1) - 1])
    T = probabilities[torch.stack(anchors)].clamp(min=SMALLEST)
    return T / T.sum(1, keepdim=True)
