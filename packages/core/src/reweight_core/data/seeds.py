"""What follows from the seed: the order of examples in each epoch, and the seeds of all generators."""

import numpy as np


def derived_seed(seed: int, purpose: str) -> int:
    """Return the seed of a generator that is used for one purpose, so that no two purposes share a stream."""
    return int(np.random.RandomState([seed, 5, *purpose.encode()]).randint(2**31))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return a permutation of 0..size-1 for one epoch."""
    return np.random.RandomState([seed, 2, epoch]).permutation(size)


def cycled_order(seed: int, epoch: int, size: int, length: int, purpose: str = "meta") -> np.ndarray:
    """Return `length` positions below `size` for one epoch: permutations, one after the other.

    Args:
        purpose: ``meta`` for meta batches, ``train`` for training on the meta set: orders of their own.
    """
    rng = np.random.RandomState([seed, {"meta": 3, "train": 4}[purpose], epoch])
    rounds = -(-length // size)
    return np.concatenate([rng.permutation(size) for _ in range(rounds)])[:length]
