"""Points that stand for all of a set, by the distances between them."""

from __future__ import annotations

import heapq

import numpy as np


def most_central(distances: np.ndarray, count: int) -> np.ndarray:
    """Choose the points whose sums of distances to all others are smallest.

    Args:
        distances: between all points, (N, N).
        count: number of points to choose, 1..N.

    Returns:
        The chosen points, the most central first, int64 (count,).
    """
    return distances.sum(1, dtype=np.float64).argsort(kind="stable")[:count]


def greedy_medoids(distances: np.ndarray, count: int) -> np.ndarray:
    """Choose points one after the other, each so that the sum of distances to the nearest chosen one falls most.

    This is the greedy algorithm for facility location: the sum over all points of the largest distance less that to
    the nearest chosen point. The gain of a point only falls as others are chosen, so an old gain is an upper bound,
    and few are computed anew (Minoux 1978). Of points that are equally good the first is taken.

    Args:
        distances: between all points, symmetric, (N, N).
        count: number of points to choose, 1..N.

    Returns:
        The chosen points in the order of choice, int64 (count,).
    """
    nearest = np.full(len(distances), distances.max(), distances.dtype)
    bounds = [(-_gain(nearest, row), point) for point, row in enumerate(distances)]
    heapq.heapify(bounds)
    chosen: list[int] = []
    while len(chosen) < count:
        _, point = heapq.heappop(bounds)
        current = -_gain(nearest, distances[point]), point
        if bounds and bounds[0] < current:
            heapq.heappush(bounds, current)
            continue
        chosen.append(point)
        np.minimum(nearest, distances[point], out=nearest)
    return np.array(chosen, dtype=np.int64)


def _gain(nearest: np.ndarray, distances: np.ndarray) -> float:
    """Return how much the sum of the distances to the nearest chosen point falls with one more."""
    return float(np.maximum(nearest - distances, 0).sum())


def cluster_sizes(distances: np.ndarray, medoids: np.ndarray) -> np.ndarray:
    """Count the points that each medoid is the nearest to, itself among them; int64 (count,).

    Args:
        distances: between all points, (N, N).
        medoids: the chosen points, all different, (count,).
    """
    owner = distances[medoids].argmin(0)
    owner[medoids] = np.arange(len(medoids))
    return np.bincount(owner, minlength=len(medoids))
