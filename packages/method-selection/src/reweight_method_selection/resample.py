"""Class-balanced sampling: draw a class uniformly, then one of its examples (L2RW, Ren et al. 2018, figure 2)."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from reweight_core import Context, Stage, hookimpl


class Resample:
    """Draws the examples of every epoch with replacement, so that all observed classes come equally often."""

    def __init__(self, config: object, context: Context):
        sets = (context.train, context.meta)
        self.labels = np.concatenate([examples.labels.cpu().numpy() for examples in sets if examples is not None])

    @hookimpl(wrapper=True)
    def order_epoch(
        self, stage: Stage, epoch: int, size: int, rng: np.random.RandomState
    ) -> Generator[None, np.ndarray | None, np.ndarray]:
        """As many positions as the method takes, of those examples that it takes, int64 (k,)."""
        order = yield
        if order is None:
            order = np.arange(size) if stage.ids is None else stage.ids
        return order[draw_balanced(self.labels[order], len(order), rng)]


def draw_balanced(labels: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw positions with replacement, so that each class that has examples is equally likely.

    Args:
        labels: of the examples, int64 (N,).
        count: number of positions.
        rng: source of the draws.

    Returns:
        Positions in `labels`, int64 (count,).
    """
    counts = np.unique(labels, return_counts=True)[1]
    by_class = labels.argsort(kind="stable")
    drawn = rng.randint(len(counts), size=count)
    within = (rng.random_sample(count) * counts[drawn]).astype(np.int64)
    return by_class[(counts.cumsum() - counts)[drawn] + within]
