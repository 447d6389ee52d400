"""Core's own options: which data, and how a run trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt

from reweight_core.config.interval import is_interval
from reweight_core.config.options import option
from reweight_core.data.augmentations import Augmentation
from reweight_core.plugins.records import NoOptions

OWNER = "reweight"
"""Owner of core's options in help texts and error messages."""

PLUGIN_OPTIONS = {
    "method": "method",
    "loss": "loss",
    "with": "component",
    "data": "data",
    "noise": "noise",
    "model": "model",
    "observe": "observer",
}
"""Core's options that choose plugins -> the kind of plugin."""


@attrs.frozen
class DataConfig:
    """Which data, and what is done to it before training."""

    data: str = option("digits", "Dataset; reweight list describes each.", group="data", metavar="NAME")
    noise: str | None = option(
        None, "Corrupt the training labels, e.g. uniform:0.4.", group="data", metavar="KIND:ARGUMENT"
    )
    imb: float | None = option(
        None,
        "Long tail: size of the smallest class / size of the largest, in (0, 1].",
        check=and_(gt(0), le(1)),
        group="data",
    )
    meta_size: int | None = option(
        None,
        "Clean meta examples, balanced over the classes, taken out of the training set before corruption (or out of "
        "the dataset's own meta set); 0 for none.",
        check=ge(0),
        group="data",
    )
    meta_draw: Literal["balanced", "random"] = option(
        "balanced", "Draw the meta set with equally many of each class, or at random.", group="data"
    )
    val_size: int = option(
        0, "Validation examples, balanced, taken out of the training set.", check=ge(0), group="data"
    )
    val_labels: Literal["clean", "observed"] = option(
        "clean",
        "Labels of the validation examples: clean, or observed like those of the training set (noise included).",
        group="data",
    )
    val_fold: str | None = option(
        None,
        "Take the K-th of N equal parts as the validation set, e.g. 1/5: of the meta set, or where there is none, of "
        "the training set with its observed labels. For cross-validation.",
        group="data",
        metavar="K/N",
    )
    test_from: str = option(
        "folder",
        "Test set: folder (the dataset's own), split:SHARE (this share of every class of the training set) or none.",
        group="data",
    )
    seed: int = option(
        0,
        "Seed of all that is random: split, noise, initial weights, order, augmentation.",
        check=and_(ge(0), lt(2**32)),
        group="data",
    )
    data_options: Any = NoOptions()


@attrs.frozen
class RunConfig(DataConfig):
    """Everything a training run is made of; `configure` builds it, `reweight_core.train` runs it."""

    augment: Augmentation | None = option(
        None,
        "Augmentation of training and meta images; resized-crop is for images that are read while training. "
        "Default: the dataset's own.",
        group="data",
    )
    method: str = option("erm", "Method; reweight list describes each.", group="method", metavar="NAME")
    with_: tuple[str, ...] = option(
        (),
        "Component to add to the method, or none; again for another. They act in this order.",
        group="method",
        metavar="NAME",
    )
    loss: str = option(
        "cross-entropy",
        "Training loss; methods weight it and look ahead on top of it.",
        group="method",
        metavar="NAME",
    )
    meta_loss: Literal["cross-entropy", "training"] = option(
        "cross-entropy",
        "Loss of the meta batch: cross-entropy, or the training loss.",
        group="method",
    )
    meta_use: Literal["look-ahead", "both"] = option(
        "look-ahead",
        "What the meta set is for: look-ahead, and whatever else the method does with clean examples; or both: a half "
        "of it is trained on too, with weight 1 (all of it where the method has no use for clean examples).",
        group="method",
    )
    weights: Path | None = option(
        None,
        "Multiply what each training example contributes by a weight of your own, whatever the method makes of it: a "
        "CSV file with the columns id (position in the dataset's training set) and weight; others have 1.",
        group="method",
    )
    plant: int = option(
        0,
        "Put N examples of the meta set among the training examples, every second one with a wrong label, so that "
        "reweight audit can tell how well wrong labels are found.",
        check=ge(0),
        group="method",
    )
    preset: str | None = option(
        None,
        "Other defaults of the method, which options override: a setting of its paper, or fast, whose look-ahead is "
        "cheaper.",
        group="method",
    )
    model: str = option(
        "resnet32",
        "Network: an installed one, one of torchvision's classification models, or your own as package.module:factory, "
        "called with input_shape and num_classes, as far as it takes them.",
        group="network",
        metavar="NAME",
    )
    head: Literal["linear", "cosine"] = option(
        "linear",
        "Last layer: linear as the network has it, or cosine: 30 times the cosine between feature and class weight.",
        group="network",
    )
    init_from: Path | None = option(
        None,
        "Begin with the weights in this safetensors file; a last layer for another number of classes begins untrained.",
        group="network",
    )
    pretrained: bool = option(
        False, "Begin with torchvision's pre-trained weights of the model (downloads them once).", group="network"
    )
    epochs: int = option(80, "Epochs to train.", check=gt(0), group="optimisation")
    steps: int | None = option(
        None,
        "Steps to train, in place of --epochs; stages that a plugin adds come beside them.",
        check=gt(0),
        group="optimisation",
    )
    best_by: Literal["val_accuracy", "val_balanced_accuracy"] = option(
        "val_accuracy",
        "Figure of the validation set by which the best network is chosen, and for which --patience waits.",
        group="optimisation",
    )
    patience: int = option(
        0,
        "End training when the figure of --best-by has not risen for N epochs, and keep the best network; 0: never.",
        check=ge(0),
        group="optimisation",
    )
    batch_size: int = option(100, "Training batch size n.", check=gt(1), group="optimisation")
    meta_batch_size: int = option(100, "Meta batch size m (at most the meta set).", check=gt(1), group="optimisation")
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "Optimizer of the network.", group="optimisation")
    lr: float = option(0.1, "Initial learning rate.", check=gt(0), group="optimisation")
    schedule: Literal["cosine", "restarts", "cyclic", "step", "constant"] = option(
        "cosine",
        "Learning rate: cosine to --lr-floor; restarts: the same, again every --lr-period; cyclic: half-cosines to 0 "
        "of 1, 2, 4, ... epochs; step: falls at --lr-drops.",
        group="optimisation",
    )
    warmup: float = option(
        0.0,
        "Epochs in which the rate rises linearly from 0 to what the schedule gives, at the beginning of the run.",
        check=ge(0),
        group="optimisation",
    )
    lr_period: int = option(10, "Epochs between two starts of --schedule restarts.", check=gt(0), group="optimisation")
    lr_floor: float = option(
        0.0, "Smallest learning rate of --schedule cosine and restarts.", check=ge(0), group="optimisation"
    )
    lr_drops: str | None = option(
        None,
        "Epochs at which --schedule step lowers the rate, e.g. 160,180. Default: at 80 and 90 % of the epochs.",
        group="optimisation",
        comma_list=True,
    )
    lr_drop_factor: float = option(
        0.1, "Factor of each drop of --schedule step.", check=and_(gt(0), lt(1)), group="optimisation"
    )
    momentum: float = option(0.9, "Momentum of SGD (without Nesterov).", check=and_(ge(0), lt(1)), group="optimisation")
    weight_decay: float = option(5e-4, "Weight decay on all parameters.", check=ge(0), group="optimisation")
    max_grad_norm: float | None = option(
        None, "Clip the norm of the real update's gradient.", check=gt(0), group="optimisation"
    )
    stop_when: Literal["diverged", "never"] = option(
        "diverged",
        "End a run early, with exit status 1, when it has diverged, or never.",
        group="optimisation",
        changes_result=False,
    )
    on_nonfinite: Literal["stop", "skip"] = option(
        "stop",
        "Where a loss, a weight or a gradient is infinite or not a number: stop the run, or skip the step, which then "
        "changes nothing.",
        group="optimisation",
    )
    lookahead: Literal["auto", "jvp", "fd", "head", "double"] = option(
        "auto",
        "How to look ahead: jvp (exact), fd (approximate, cheaper), head (last layer only), double (double backward), "
        "or auto: fd where the update stays within 1 % of jvp's, else jvp, else double.",
        group="look-ahead",
    )
    virtual_step: Literal["plain", "optimizer", "off"] = option(
        "plain",
        "The look-ahead's step: plain SGD as in the papers, one of the optimizer itself, or none (theta_hat = theta).",
        group="look-ahead",
    )
    meta_every: int = option(
        1,
        "Look ahead in every K-th step only, with methods that have a rule for the others.",
        check=gt(0),
        group="look-ahead",
    )
    memory: Literal["shared", "lean"] = option(
        "shared",
        "lean: do the training forward again after the look-ahead, to keep no graph meanwhile.",
        group="look-ahead",
    )
    processes: int = option(
        1,
        "Processes that train together, one a GPU; each takes its share of every batch (docs/several-processes.md).",
        check=gt(0),
        group="machine",
    )
    sync_batchnorm: bool = option(
        False,
        "With several processes: normalise by the statistics of the whole batch, not by those of each one's share.",
        group="machine",
    )
    device: str = option(
        "auto",
        "auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, ...",
        group="machine",
        changes_result=False,
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = option(
        "auto",
        "Arithmetic of the network: fp32, tf32 (on a GPU), bf16 (autocast), or auto: on a GPU tf32 where the first "
        "update stays within 1 % of fp32's, else fp32.",
        group="machine",
    )
    graph: Literal["auto", "on", "off"] = option(
        "auto",
        "Replay steps as CUDA graphs; auto: on a GPU, unless a step cannot be recorded. Same results.",
        group="machine",
        changes_result=False,
    )
    channels_last: bool = option(True, "Keep images and kernels in channels-last order.", group="machine")
    workers: int | None = option(
        None,
        "Processes that read what is read while training; any number gives the same results. Default: one a core.",
        check=ge(0),
        group="machine",
        changes_result=False,
    )
    observe: tuple[str, ...] = option(
        (),
        "Observer that hears of the run, or none; again for another. A run goes on and is tested without it, too.",
        group="output",
        changes_result=False,
        metavar="NAME",
    )
    checkpoint_every: str = option(
        "5min",
        "Between two checkpoints: 200steps, 5min, 1epochs, or never; every stage ends with one, and, unless it is "
        "never, a run that is interrupted.",
        check=is_interval,
        group="output",
        changes_result=False,
        metavar="INTERVAL",
    )
    keep: int = option(
        2, "Checkpoints that stay: the newest ones.", check=ge(2), group="output", changes_result=False, metavar="N"
    )
    out: Path | None = option(
        None, "Folder of the run. Default: a new one below runs/.", group="output", changes_result=False
    )
    method_options: Any = NoOptions()
    loss_options: Any = NoOptions()
    component_options: tuple[Any, ...] = ()
    observer_options: tuple[Any, ...] = ()
