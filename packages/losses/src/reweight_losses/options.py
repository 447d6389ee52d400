"""Options of the losses and methods."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt

from reweight_core import option

SHARE = and_(ge(0), le(1))


@attrs.frozen
class GCEConfig:
    """Options of ``--loss gce``."""

    q: float = option(0.7, "From near 0 (cross-entropy) to 1 (mean absolute error).", check=and_(gt(0), le(1)))
    truncate: float | None = option(
        None,
        "Leave out examples whose label has at most this probability; the paper has 0.5.",
        check=and_(gt(0), lt(1)),
    )
    truncate_from: int | None = option(
        None, "Epochs with all examples before some are left out. Default: a third of the epochs.", check=gt(0)
    )


@attrs.frozen
class SCEConfig:
    """Options of ``--loss sce``."""

    alpha: float = option(0.1, "Factor of cross-entropy; the paper has 6 for CIFAR-100.", check=ge(0))
    beta: float = option(1.0, "Factor of reverse cross-entropy; the paper has 0.1 for CIFAR-100.", check=ge(0))


@attrs.frozen
class BootstrapConfig:
    """Options of ``--loss bootstrap``."""

    target: Literal["hard", "soft"] = option(
        "hard", "What is mixed into the label: the predicted class, or the predicted distribution."
    )
    beta: float | None = option(None, "Share of the label. Default: 0.8 if hard, 0.95 if soft.", check=SHARE)


@attrs.frozen
class ELRConfig:
    """Options of ``--loss elr``; defaults are those for CIFAR-10 with symmetric noise."""

    beta: float = option(0.7, "Decay of an example's averaged prediction.", check=and_(ge(0), lt(1)))
    lambda_: float = option(3.0, "Factor of the regularisation; the paper has 7 for CIFAR-100.", check=ge(0))


@attrs.frozen
class CorrectionConfig:
    """Options of ``--loss forward`` and ``--loss backward``; without a matrix they estimate it by a first training."""

    matrix: Path | None = option(
        None,
        "File with the transition matrix: JSON, or a line of numbers for each true class, P(observed | true).",
        metavar="FILE",
    )
    noise: str | None = option(
        None, "Take the matrix of this kind of noise, e.g. uniform:0.4.", metavar="KIND:ARGUMENT"
    )
    percentile: float | None = option(
        None,
        "The estimate takes the example at this percentile of a class's probability, which leaves out outliers. "
        "Default: 100 - 30/C, so 97 for 10 classes.",
        check=and_(gt(0), le(100)),
    )
    estimate_epochs: int | None = option(
        None,
        "Epochs of the first training, before --epochs. Default: a quarter of them. The paper has as many, and takes "
        "the network that is best on a validation set with noisy labels (--val-size).",
        check=gt(0),
    )


@attrs.frozen
class SModelConfig:
    """Options of ``--loss s-model``."""

    eps: float = option(0.3, "Share of wrong labels that the channel begins with.", check=and_(gt(0), lt(1)))
    freeze: int = option(0, "Epochs before the channel begins to learn.", check=ge(0))


@attrs.frozen
class FocalConfig:
    """Options of ``--loss focal``."""

    gamma: float = option(2.0, "How much less easy examples count; 0 is cross-entropy.", check=ge(0))


@attrs.frozen
class SigmoidFocalConfig:
    """Options of ``--loss sigmoid-focal``."""

    gamma: float = option(1.0, "How much less easy classes count; 0 is binary cross-entropy.", check=ge(0))
    beta: float = option(0.0, "As --class-balanced-beta; 0 for no class weights.", check=SHARE)


@attrs.frozen
class ClassBalancedConfig:
    """Options of ``--loss class-balanced``."""

    beta: float = option(
        0.9999, "The weight of a class of N examples is (1-b)/(1-b^N): 0 for equal ones, 1 for 1/N.", check=SHARE
    )
    normalise: Literal["examples", "weights"] = option(
        "examples",
        "Divide a batch's sum by its number of examples, as published, or by the sum of their weights: larger steps "
        "where most examples are of large classes.",
    )
    from_: int = option(0, "Epochs without weights before (deferred re-weighting).", check=ge(0))


@attrs.frozen
class LogitAdjustedConfig:
    """Options of ``--loss logit-adjusted``."""

    tau: float = option(1.0, "Factor of log N in the logits; 1 is balanced softmax.", check=ge(0))


@attrs.frozen
class LDAMConfig:
    """Options of ``--loss ldam``."""

    max_margin: float = option(0.5, "Margin of the smallest class, in cosine.", check=ge(0))
    reweight_from: int | None = option(
        None, "Epochs without class weights before. Default: 80 % of the epochs.", check=ge(0)
    )


@attrs.frozen
class SelfPacedConfig:
    """Options of ``--method self-paced``."""

    percentile: float = option(
        75.0, "Percentile of a batch's losses up to which examples are trained on.", check=and_(gt(0), le(100))
    )
    burn_in: float = option(0.2, "Share of the epochs that train on all examples first.", check=SHARE)


@attrs.frozen
class MentorConfig:
    """Options of ``--method mentor``."""

    percentile: float = option(
        75.0,
        "Percentile of a batch's losses up to which examples are trained on; the official scripts have 50 where "
        "80 % of the labels are wrong.",
        check=and_(gt(0), le(100)),
    )
    burn_in: float = option(0.18, "Share of the epochs that train on all examples first.", check=SHARE)
    early_dropout: float = option(
        0.5, "Share of each batch that is left out at random in the first 17 % of the epochs.", check=and_(ge(0), lt(1))
    )
    dropout: float = option(0.05, "The same afterwards.", check=and_(ge(0), lt(1)))


@attrs.frozen
class PencilConfig:
    """Options of ``--method pencil``; defaults are those of the official code."""

    alpha: float = option(
        0.4, "Factor of the compatibility of an example's label distribution with its label.", check=ge(0)
    )
    beta: float = option(0.1, "Factor of the entropy of predictions.", check=ge(0))
    label_lr: float = option(600.0, "Step size lambda of the label distributions.", check=ge(0))
    label_scale: float = option(10.0, "Logit K that a label's own class begins with.", check=gt(0))
    correct_from: int | None = option(
        None, "Epochs of the first stage, with the labels as they are. Default: 70 of 320.", check=gt(0)
    )
    correct_until: int | None = option(
        None, "Epochs of the first two stages; the second corrects labels. Default: 200 of 320.", check=gt(0)
    )
    correct_lr: float | None = option(
        None, "Constant rate of the network in the first two stages. Default: 0.3 of --lr.", check=gt(0)
    )
