"""Options of FSR and of its components."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt

from reweight_core import option


@attrs.frozen
class FSRConfig:
    """Options of ``--method fsr``; defaults are those of the official code for noisy CIFAR."""

    dictionary_size: int | None = option(
        None,
        "Examples in the dictionary |R|, balanced over observed classes. Default: 2000, at most 15 % of the training "
        "set.",
        check=gt(0),
    )
    probe_size: int | None = option(
        None,
        "Examples q of the dictionary in each step's probe batch. Default: 200, at most half of the dictionary.",
        check=and_(gt(0), le(100_000)),
    )
    warmup_epochs: int = option(20, "Epochs E with equal weights, while the dictionary is still poor.", check=ge(0))
    score_momentum: float = option(
        0.9, "Momentum lambda of the scores that fill the dictionary.", check=and_(ge(0), lt(1))
    )
    negative_weights: Literal["clip", "shift"] = option(
        "clip",
        "clip sets negative weights to 0 (for noisy labels); shift moves the smallest to 1/n (for long tails).",
    )
    probe: Literal["joint", "separate"] = option(
        "joint",
        "joint: probe batch and training batch share one forward pass of the meta model; separate: the meta-margin is "
        "taken on the features of the real pass, an approximation that saves n of the n + q forward passes.",
    )
    reward: Literal["dictionary", "given"] = option(
        "dictionary", "Where probe batches come from: the dictionary, or the clean meta set that was given."
    )
    pusher: Literal["meta-margin", "negative-loss", "max-margin", "forgetting-events", "area-under-margin"] = option(
        "meta-margin", "Score that an example enters the dictionary by; the paper compares them."
    )
    virtual_lr: float = option(0.1, "Rate of the virtual step, constant as in the official code.", check=gt(0))
    virtual_momentum: float = option(
        0.9,
        "Factor of SGD's momentum buffer in the virtual step (Adam has none); the paper has 0.",
        check=ge(0),
    )
    reward_smoothing: float = option(0.0, "Label smoothing in the loss of the probe batch.", check=and_(ge(0), lt(1)))


@attrs.frozen
class MixUpConfig:
    """Options of ``--with mixup``."""

    alpha: float = option(
        0.5, "Shape: the own image's share is 1 - u^(1/alpha)/2 with u uniform, so at least a half.", check=gt(0)
    )


@attrs.frozen
class RelabelConfig:
    """Options of ``--with relabel``."""

    multiplier: float = option(2.0, "Weight p of the pseudo-label loss.", check=ge(0))
    decay: float = option(0.1, "Decay beta of an example's averaged logits.", check=and_(ge(0), lt(1)))
    temperature: float = option(1.0, "Temperature T of the pseudo-labels.", check=gt(0))
    warmup_epochs: int = option(20, "Epochs before the pseudo-label loss counts.", check=ge(0))


@attrs.frozen
class LabelSmoothingConfig:
    """Options of ``--with label-smoothing``."""

    amount: float = option(0.1, "Share of each target that is spread over all classes.", check=and_(gt(0), le(1)))


@attrs.frozen
class EMAConfig:
    """Options of ``--with ema``."""

    decay: float = option(
        0.999, "Decay of the averaged weights; (1+t)/(10+t) at step t if less.", check=and_(ge(0), lt(1))
    )
