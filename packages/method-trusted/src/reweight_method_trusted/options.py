"""Options of the methods that learn from trusted examples."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import ge, gt

from reweight_core import option


@attrs.frozen
class INSWConfig:
    """Options of ``--method insw``."""

    weight_lr: float = option(3.0, "Step size of the weights; the official code's is 1.", check=ge(0))
    weight_divisor: float = option(
        1.0, "What a weight is divided by at each visit, before its step (w_decay of the official code).", check=ge(1)
    )
    normalise: Literal["linear", "softmax"] = option(
        "linear", "How the weights of a batch are normalised: divided by their sum, or by a softmax."
    )
    temperature: float = option(1.0, "Temperature of --normalise softmax.", check=gt(0))


@attrs.frozen
class SoftLabelConfig:
    """Options of ``--method soft-label``."""

    label_lr: float = option(10.0, "Step size of what is learned.", check=ge(0))
    soft_labels: Literal["smoothing", "rows"] = option(
        "smoothing", "What is learned for each example: how far its label is smoothed, or its whole row of C entries."
    )


@attrs.frozen
class GenLabelConfig:
    """Options of ``--method gen-label``."""

    label_lr: float = option(
        10.0, "Step size of the label logits; the official 4000 for batches of 128 is 31 here.", check=ge(0)
    )
    label_scale: float = option(10.0, "Label logit K of the observed class at the start (others: 0).", check=gt(0))
    virtual_lr: float = option(0.5, "Rate of the virtual step, constant.", check=gt(0))
    entropy: float = option(1.0, "Factor of the predictions' entropy in the loss.", check=ge(0))
    warmup_epochs: int | None = option(
        None, "Epochs of plain training before labels are learned. Default: a third of the run's.", check=ge(0)
    )


@attrs.frozen
class GLCConfig:
    """Options of ``--method glc``."""

    first_epochs: int | None = option(
        None,
        "Epochs of the network that the corruption matrix is estimated with, before the run's own. Default: a quarter "
        "of these.",
        check=gt(0),
    )


@attrs.frozen
class PosteriorLabelConfig:
    """Options of ``--method posterior-label``."""

    first_epochs: int | None = option(
        None,
        "Epochs of the network of the trusted examples, before the run's own. Default: a quarter of these.",
        check=gt(0),
    )


@attrs.frozen
class FineTuneConfig:
    """Options of ``--with fine-tune``."""

    steps: int | None = option(None, "Steps on the trusted examples. Default: a sixteenth of the run's.", check=gt(0))
    lr: float | None = option(
        None, "Learning rate, constant. Default: a tenth of that at the last stage's start.", check=ge(0)
    )
