"""GLC, gold loss correction: Hendrycks et al. (NeurIPS 2018), "Using Trusted Data to Train Deep Networks on Labels
Corrupted by Severe Noise".

A first network, trained on the observed labels, shows on the trusted examples how labels are corrupted; a second one is
trained with that known.
"""

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reweight_core import Batch, Context, Stage, Step, hookimpl
from reweight_method_trusted.options import GLCConfig

SMALLEST = 1e-12
"""Added to the entries of the corruption matrix, so that the loss of a label that it rules out is finite."""


class GLC:
    """Trains twice: plainly, to estimate the corruption matrix, then anew with the corrected loss.

    Attributes:
        C_hat: the corruption matrix, an estimate of P(observed label j | true label i), (C, C); the identity before.
    """

    def __init__(self, config: GLCConfig, context: Context):
        assert context.meta is not None, "runs without trusted examples are refused"
        self.trusted, self.predict = context.meta, context.predict
        self.epochs = config.first_epochs or max(1, context.epochs // 4)
        self.C_hat = torch.eye(context.num_classes, device=context.device, dtype=context.dtype)

    @hookimpl
    def plan_stages(self, stage: Stage) -> list[Stage]:
        """A network for the estimate, and one from the same initial weights that uses it."""
        first = attrs.evolve(stage, name="estimate", epochs=self.epochs, steps=None)
        return [first, attrs.evolve(stage, name="correct", source="both", start="initial", fresh_optimizer=True)]

    @hookimpl
    def finish_epoch(self, epoch: int) -> None:
        """Estimate the corruption matrix with the first network."""
        if epoch == self.epochs:
            probabilities = self.predict(self.trusted).logits.softmax(1)
            self.C_hat.copy_(corruption_matrix(probabilities, self.trusted.labels))

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The corrected loss -log sum_i p_i C^_iy of untrusted examples, cross-entropy of trusted ones, (n,)."""
        plain = F.cross_entropy(logits, batch.labels, reduction="none")
        if batch.trusted is None:
            return plain
        corrected = -(logits.log_softmax(1) + self._log_likelihood(batch.labels)).logsumexp(1)
        return torch.where(batch.trusted, plain, corrected)

    @hookimpl
    def example_weights(self, step: Step, weights: Tensor) -> Tensor:
        """The posterior p_y C^_yy / sum_i p_i C^_iy that the observed label is the true one, (n,)."""
        posterior = (step.logits.log_softmax(1) + self._log_likelihood(step.labels)).softmax(1)
        return posterior.gather(1, step.labels[:, None]).squeeze(1)

    def _log_likelihood(self, labels: Tensor) -> Tensor:
        """Return log P(observed label | true label i) of every class i, (n, C)."""
        return (self.C_hat.T.index_select(0, labels) + SMALLEST).log()

    def state_dict(self) -> dict[str, Tensor]:
        """The corruption matrix."""
        return {"C_hat": self.C_hat}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.C_hat.copy_(state["C_hat"])


def corruption_matrix(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the mean prediction on the trusted examples of each class, (C, C); a class without any keeps its labels.

    Args:
        probabilities: predictions of a network that was trained on the observed labels, (k, C).
        labels: true labels, int64 (k,).
    """
    classes = probabilities.shape[1]
    members = F.one_hot(labels, classes).to(probabilities.dtype)
    counts = members.sum(0)[:, None]
    means = members.T @ probabilities / counts.clamp(min=1)
    return torch.where(counts > 0, means, torch.eye(classes, dtype=means.dtype, device=means.device))
