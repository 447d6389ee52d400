"""Every random stream of a run: what follows from its seed, and from nothing else."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What draws are for: the second part of a seed, so that no two purposes share draws.

    The split of the data has the seed alone. Another number would change the data or the order of every run.
    """

    NOISE = 1
    """Label noise."""
    EPOCH_ORDER = 2
    """The order of the training examples in an epoch."""
    META_ORDER = 3
    """The order of the meta batches in an epoch."""
    META_TRAINING_ORDER = 4
    """The order of the meta examples in an epoch that trains on them."""
    GENERATORS = 5
    """Seeds of torch's generators: augmentation, network, method, components."""
    TRAIN_CROPS = 7
    """Crops of random area and flips of training images that are read while training."""
    META_CROPS = 8
    """The same of meta images."""
    CHOSEN_ORDER = 9
    """Draws of a plugin that orders an epoch."""
    FOLDS = 10
    """The parts of the trusted or the training examples for cross-validation."""
    META_HALVES = 11
    """The halves of the trusted examples, one of which is trained on."""
    PLANTED = 12
    """Which clean examples are planted, and their labels."""


def random_state(seed: int, stream: Stream, *parts: int) -> np.random.RandomState:
    """Return the source of a stream's draws, whose values are the same on every machine and version of numpy.

    Args:
        seed: the run's.
        stream: what the draws are for.
        parts: what else they follow from, the epoch for example.
    """
    return np.random.RandomState([seed, stream, *parts])


def derived_seed(seed: int, purpose: str) -> int:
    """Return the seed of a generator that is used for one purpose, so that no two purposes share a stream."""
    return int(random_state(seed, Stream.GENERATORS, *purpose.encode()).randint(2**31))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return a permutation of 0..size-1 for one epoch."""
    return random_state(seed, Stream.EPOCH_ORDER, epoch).permutation(size)


def cycled_order(seed: int, epoch: int, size: int, length: int, stream: Stream = Stream.META_ORDER) -> np.ndarray:
    """Return `length` positions below `size` for one epoch: permutations, one after the other."""
    rng = random_state(seed, stream, epoch)
    rounds = -(-length // size)
    return np.concatenate([rng.permutation(size) for _ in range(rounds)])[:length]
