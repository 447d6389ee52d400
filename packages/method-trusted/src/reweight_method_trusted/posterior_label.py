"""Posterior labels: what a network of the trusted examples and the observed labels say together.

The noise model is that of Dawid and Skene (Applied Statistics 1979) with one annotator, who gave the observed
labels, and the network's predictions in place of the class shares.
"""

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core import Batch, Context, Stage, Step, hookimpl
from reweight_method_trusted.options import PosteriorLabelConfig

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the first network's predictions; that which makes the observed labels likeliest is taken."""

ROUNDS = 50
"""Rounds of expectation and maximisation."""

PRIOR_COUNT = 1.0
"""Examples of every class that count as observed in each class, all together, so that no row is empty."""


class PosteriorLabel:
    """Trains on the trusted examples alone, then anew on all with labels that the first network has corrected.

    The label of example i becomes r_i[y] = P(y | x_i, observed label), proportional to p_i[y] T[y, observed label],
    with the first network's prediction p_i and the noise matrix T under which the observed labels are likeliest.

    Attributes:
        targets: r of the training examples, then the labels of the trusted ones, (N + M, C); observed labels before.
    """

    def __init__(self, config: PosteriorLabelConfig, context: Context):
        assert context.meta is not None, "runs without trusted examples are refused"
        self.train, self.predict = context.train, context.predict
        self.epochs = config.first_epochs or max(1, context.epochs // 4)
        labels = torch.cat([context.train.labels, context.meta.labels])
        self.targets = F.one_hot(labels, context.num_classes).to(context.dtype)

    @hookimpl
    def plan_stages(self, stage: Stage) -> list[Stage]:
        """A network of the trusted examples, and one of all from the same initial weights."""
        first = attrs.evolve(stage, name="trusted", epochs=self.epochs, steps=None, source="meta")
        return [first, attrs.evolve(stage, source="both", start="initial", fresh_optimizer=True)]

    @hookimpl
    def finish_epoch(self, epoch: int) -> dict[str, float] | None:
        """Correct the labels with the first network; figure: the share of wrong labels that they say."""
        if epoch < self.epochs:
            return None
        labels = self.train.labels
        if epoch == self.epochs:
            r = posterior(self.predict(self.train).logits, labels)[0]
            self.targets[: len(labels)].copy_(r)
        kept = self.targets[: len(labels)].gather(1, labels[:, None])
        return {"wrong_labels_estimate": 1 - kept.mean().item()}

    @hookimpl
    def transform_batch(self, batch: Batch) -> Batch:
        """Give the batch its posterior labels."""
        if batch.source != "both":
            return batch
        return attrs.evolve(batch, targets=self.targets.index_select(0, batch.ids))

    @hookimpl
    def example_weights(self, step: Step) -> Tensor:
        """What is left to the observed label, (n,)."""
        return step.targets.gather(1, step.labels[:, None]).squeeze(1)

    def state_dict(self) -> dict[str, Tensor]:
        """The labels."""
        return {"targets": self.targets}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.targets.copy_(state["targets"])


def posterior(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return P(true class | example, observed label), (N, C), and the noise matrix T (C, C), by EM.

    Args:
        logits: of a network that knows nothing of the observed labels, (N, C).
        labels: observed labels, int64 (N,).
    """
    found = [_fitted((logits.double() / temperature).softmax(1), labels) for temperature in TEMPERATURES]
    likeliest = torch.stack([likelihood for _, _, likelihood in found]).argmax()
    r, T, _ = found[int(likeliest)]
    return r, T


def _fitted(p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return posterior, noise matrix and log-likelihood of the observed labels for predictions p (N, C)."""
    classes = p.shape[1]
    observed = F.one_hot(labels, classes).to(p.dtype)
    r = p
    for _ in range(ROUNDS):
        counts = r.T @ observed + PRIOR_COUNT / classes
        T = counts / counts.sum(1, keepdim=True)
        joint = p * T.T[labels]
        likelihood = joint.sum(1, keepdim=True)
        r = joint / likelihood
    return r, T, likelihood.log().sum()
