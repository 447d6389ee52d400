"""CRUST: Mirzasoleiman, Cao & Leskovec, "Coresets for Robust Training of Deep Neural Networks against Noisy Labels"
(NeurIPS 2020).

``--coreset facility-location`` is Algorithm 1 of the paper. The greedy algorithm of the official code takes earlier
values of its objective for upper bounds, although they grow, and so accepts the points in their first order: the most
central come first. ``--coreset central`` makes that choice, which the published figures are of.
"""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor

from reweight_core import Batch, Context, Stage, Step, UserError, find_head, hookimpl
from reweight_method_selection.coreset import cluster_sizes, greedy_medoids, most_central
from reweight_method_selection.options import CrustConfig

LARGEST_PART = 5000
"""Examples whose distances to each other are held at once."""

BETA = 0.1
"""The own image's share of a mixture is drawn from Beta(1, BETA)."""


class Crust:
    """Trains in each epoch on those examples of every observed class whose gradients stand for the others'."""

    def __init__(self, config: CrustConfig, context: Context):
        self.config, self.context = config, context
        if config.mix and context.train.is_read_ahead:
            raise UserError("--mix: needs the training images in memory: give --no-mix or --stream off")
        first = context.train.batch(torch.zeros(1, dtype=torch.int64, device=context.device), None)
        head = find_head(context.model, first.inputs)
        if head is None:
            raise UserError("method 'crust' needs a model that ends in a linear layer (--head linear)")
        self.head = context.model.get_submodule(head)
        self.generator = torch.Generator(context.device).manual_seed(context.seed)
        labels = context.train.labels
        self.by_class = labels.argsort(stable=True)
        self.counts = torch.bincount(labels, minlength=context.num_classes)
        self.sizes = torch.ones(len(labels), device=context.device)
        self.coreset: Tensor | None = None

    @hookimpl
    def begin_stage(self, stage: Stage) -> None:
        """A stage trains on everything unless `order_epoch` chooses."""
        self.coreset = None

    @hookimpl
    def order_epoch(self, stage: Stage, epoch: int, size: int, rng: np.random.RandomState) -> np.ndarray | None:
        """The coresets of all classes, in random order."""
        self.coreset = None
        if stage.source != "train" or stage.plain or epoch < self.config.warmup_epochs:
            return None
        labels = self.context.train.labels.cpu().numpy()
        points = self.last_layer_gradients()
        chosen = []
        for part in parts_of_classes(np.arange(size) if stage.ids is None else stage.ids, labels, rng):
            of_part = points[torch.from_numpy(part).to(points.device)]
            medoids, sizes = self.choose(torch.cdist(of_part, of_part).float().cpu().numpy())
            chosen.append(part[medoids])
            self.sizes[torch.from_numpy(part[medoids])] = torch.from_numpy(sizes).to(self.sizes)
        order = rng.permutation(np.concatenate(chosen))
        self.coreset = torch.from_numpy(order).to(self.context.device)
        return order

    @torch.no_grad()
    def last_layer_gradients(self) -> Tensor:
        """The gradient (p - y) W of each training example's cross-entropy at the last layer's input, (N, d)."""
        logits = self.context.predict(self.context.train).logits.to(self.context.device, torch.float64)
        W, labels = self.head.weight, self.context.train.labels
        assert isinstance(W, Tensor)
        p_minus_y = logits.softmax(1)
        p_minus_y[torch.arange(len(labels), device=labels.device), labels] -= 1
        return p_minus_y @ W.to(p_minus_y)

    def choose(self, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return some points that stand for all, (k,), and how many each counts for, (k,)."""
        count = max(1, int(self.config.share * len(distances)))
        if self.config.coreset == "central":
            return most_central(distances, count), np.ones(count)
        medoids = greedy_medoids(distances, count)
        return medoids, cluster_sizes(distances, medoids)

    @hookimpl
    def transform_batch(self, batch: Batch) -> Batch:
        """Mix every image with one of its observed class, of the whole training set; one share for the batch."""
        if self.coreset is None or not self.config.mix:
            return batch
        device, generator = batch.labels.device, self.generator
        # uniform numbers become Beta(BETA, 1), the other image's share
        share = torch.rand((), generator=generator, device=device, dtype=batch.inputs.dtype) ** (1 / BETA)
        drawn = batch.part(torch.rand(batch.n, generator=generator, device=device, dtype=torch.float64))
        starts = self.counts.cumsum(0) - self.counts
        place = starts[batch.labels] + (drawn * self.counts[batch.labels]).long()
        others = self.context.train.batch(self.by_class[place], generator, share=batch.share)
        return attrs.evolve(batch, inputs=torch.lerp(batch.inputs, others.inputs, share))

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """The sizes of the clusters, normalised to mean 1 over the batch, shape (n,)."""
        if self.coreset is None:
            return torch.ones_like(step.losses)
        sizes = self.sizes.index_select(0, step.ids).to(step.losses.dtype)
        return step.n * sizes / step.total(sizes.sum())

    @hookimpl
    def trusted_examples(self) -> dict[str, Tensor] | None:
        """The coreset of the epoch."""
        return None if self.coreset is None else {"coreset": self.coreset}

    def state_dict(self) -> dict[str, Tensor]:
        """The generator, and the coreset of the epoch: a run may go on within it."""
        of_epoch = {} if self.coreset is None else {"coreset": self.coreset, "sizes": self.sizes}
        return {"generator": self.generator.get_state(), **of_epoch}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.generator.set_state(state["generator"])
        self.coreset = state["coreset"].to(self.sizes.device, copy=True) if "coreset" in state else None
        if "sizes" in state:
            self.sizes.copy_(state["sizes"])


def parts_of_classes(candidates: np.ndarray, labels: np.ndarray, rng: np.random.RandomState) -> list[np.ndarray]:
    """Return the candidates by class; classes of more than `LARGEST_PART` are cut at random.

    Args:
        candidates: positions, int64 (k,).
        labels: of all examples, int64 (N,).
        rng: source of the cuts.
    """
    classes = [candidates[labels[candidates] == label] for label in np.unique(labels[candidates])]
    return [
        part
        for members in classes
        for part in np.array_split(rng.permutation(members), -(-len(members) // LARGEST_PART))
    ]
