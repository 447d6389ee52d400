"""Forward and backward correction by the transition matrix of the noise (Patrini et al., CVPR 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from reweight_core import Batch, Context, Stage, UserError, cross_entropy, hookimpl, target_rows
from reweight_losses.options import CorrectionConfig
from reweight_losses.transition import estimate_matrix, given_matrix


class Forward:
    """-log sum_j p_j T[j, y], the cross-entropy of what the network says about the OBSERVED label (Theorem 2).

    Row: p - r, r_j = p_j T[j, y] / sum_k p_k T[k, y], the posterior of the true class.

    Args:
        T: transition matrix (C, C).
        context: of the run.
    """

    def __init__(self, T: Tensor, context: Context):
        self.log_T = torch.empty(T.shape, device=context.device, dtype=context.dtype)
        self.set_matrix(T)

    def set_matrix(self, T: Tensor) -> None:
        """Use another matrix from now on."""
        self.log_T.copy_(T.log())

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The corrected cross-entropy of each example, (n,); the plain one of trusted examples."""
        return plain_if_trusted(batch, logits, forward_losses(logits, self.log_T, batch.labels))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the logarithm of T."""
        return {"log_T": self.log_T}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.log_T.copy_(state["log_T"])


class Backward:
    """sum_k T^-1[y, k] CE_k, whose expectation over the noise is the loss of the true label (Theorem 1).

    Row: p - T^-1[y, :]. The loss has no lower bound, and a matrix that is nearly singular makes it very large.

    Args:
        T: transition matrix (C, C).
        context: of the run.
    """

    def __init__(self, T: Tensor, context: Context):
        self.T_inverse = torch.empty(T.shape, device=context.device, dtype=context.dtype)
        self.set_matrix(T)

    def set_matrix(self, T: Tensor) -> None:
        """Use another matrix from now on; an estimate without an inverse has its pseudo-inverse."""
        self.T_inverse.copy_(torch.linalg.pinv(T.double()))

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The corrected cross-entropy of each example, (n,); the plain one of trusted examples."""
        targets = target_rows(batch, len(self.T_inverse)).to(logits.dtype) @ self.T_inverse.to(logits.dtype)
        return plain_if_trusted(batch, logits, -(targets * logits.log_softmax(1)).sum(1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the inverse of T."""
        return {"T_inverse": self.T_inverse}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.T_inverse.copy_(state["T_inverse"])


class Estimate:
    """Estimates the matrix of a correction with a first network, and trains a second one with it (Algorithm 1).

    The first stage is plain training, whatever the method: weights that find wrong labels would hide the noise from the
    estimate. Its network, as it was best on the
    validation set if there is one, gives the estimate; the second stage begins again with the initial weights. In the
    paper both are of one length, and the validation set has noisy labels; without one, a network that is trained for
    long says that there is no noise, for it knows the wrong labels by heart.

    Args:
        correction: the loss, with the identity.
        config: the loss's options.
        context: of the run.
    """

    def __init__(self, correction: Forward | Backward, config: CorrectionConfig, context: Context):
        self.correction, self.context, self.epochs = correction, context, config.estimate_epochs
        self.percentile = 100 - 30 / context.num_classes if config.percentile is None else config.percentile
        self.state_dict, self.load_state_dict = correction.state_dict, correction.load_state_dict

    @hookimpl
    def plan_stages(self, stage: Stage) -> list[Stage]:
        """A run to estimate, and one to train."""
        if self.epochs is None:
            self.epochs = math.ceil(stage.epochs / 4)
        return [
            attrs.evolve(stage, name="estimate", epochs=self.epochs, steps=None, plain=True),
            attrs.evolve(stage, start="initial", fresh_optimizer=True),
        ]

    @hookimpl
    def finish_epoch(self, epoch: int) -> None:
        """Estimate the matrix at the end of the first stage."""
        if epoch == self.epochs:
            logits = self.context.predict(self.context.train, self.context.best_network()).logits
            self.correction.set_matrix(estimate_matrix(logits.double().softmax(1), self.percentile))

    @hookimpl
    def losses(self, batch: Batch, logits: Tensor) -> Tensor:
        """The corrected cross-entropy of each example, (n,)."""
        return self.correction.losses(batch, logits)


def plain_if_trusted(batch: Batch, logits: Tensor, corrected: Tensor) -> Tensor:
    """Return the corrected losses (n,), but cross-entropy where labels are known to be right: of trusted examples."""
    if batch.source == "train" and batch.trusted is None:
        return corrected
    plain = cross_entropy(batch, logits)
    return plain if batch.trusted is None else torch.where(batch.trusted, plain, corrected)


def forward_losses(logits: Tensor, log_T: Tensor, labels: Tensor) -> Tensor:
    """Return -log sum_j p_j T[j, y] of each example, (n,).

    Args:
        logits: (n, C).
        log_T: logarithm of the transition matrix (C, C).
        labels: observed labels y, (n,).
    """
    return -torch.logsumexp(logits.log_softmax(1) + log_T.T[labels], 1)


def build(loss: type[Forward] | type[Backward], flag: str, config: CorrectionConfig, context: Context) -> object:
    """Return a correction by the matrix that is given, or one that estimates it.

    Raises:
        UserError: if the matrix cannot be used.
    """
    T = given_matrix(config, context.num_classes, flag)
    if T is None:
        return Estimate(loss(torch.eye(context.num_classes), context), config, context)
    unexplained = (T.sum(0) == 0) & (torch.bincount(context.train.labels.cpu(), minlength=len(T)) > 0)
    if unexplained.any():
        label = int(unexplained.nonzero()[0])
        raise UserError(f"{flag}: no class is ever observed as class {label} by the given matrix, but examples are")
    if loss is Backward and torch.linalg.matrix_rank(T.double()) < len(T):
        raise UserError(
            f"{flag}: the transition matrix has no inverse (two classes are observed alike); use --loss forward"
        )
    return loss(T, context)


def forward(config: CorrectionConfig, context: Context) -> object:
    """Return forward correction."""
    return build(Forward, "--forward", config, context)


def backward(config: CorrectionConfig, context: Context) -> object:
    """Return backward correction."""
    return build(Backward, "--backward", config, context)
