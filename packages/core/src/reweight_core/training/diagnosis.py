"""What has gone wrong with a run, told from the figures of its epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import numpy as np

from reweight_core.data.examples import Examples
from reweight_core.training.build import Parts

EPOCHS = 3
"""A problem shows in so many epochs in a row of one stage."""

STEPS = 100
"""A network is given so many steps after the first epoch of a stage before its accuracy is judged."""

DEVIATIONS, SHARE = 2, 0.05
"""An accuracy is that of guessing up to so many standard deviations above it, and up to this share of what is left."""

Metrics = Mapping[str, Any]
"""The figures of an epoch, as in ``metrics.jsonl``; one that is missing or None is not judged."""


@attrs.frozen(slots=False)
class Setting:
    """What the figures of a run are judged by.

    Attributes:
        class_counts: training examples of each observed class.
        val_counts: validation examples of each class, or None where there are none of two classes.
        wrong_labels: number of training examples with a wrong label, or None where it is unknown.
        batch_size: n.
        steps: of the whole run.
        cross_entropy: whether the training loss is cross-entropy, of which guessing has log C.
        meta_size: number of clean meta examples, where their loss is cross-entropy and validation labels are clean too,
            so that the two can be compared; else None.
    """

    class_counts: Sequence[int]
    val_counts: Sequence[int] | None
    wrong_labels: int | None
    batch_size: int
    steps: int
    cross_entropy: bool
    meta_size: int | None

    @classmethod
    def of(cls, parts: Parts) -> Setting:
        """Return that of a run."""
        config, data = parts.config, parts.data
        classes = len(data.dataset.classes)
        val_counts = None
        # an accuracy on one class alone says nothing
        if data.val is not None and len(set(data.val.labels.tolist())) > 1:
            val_counts = np.bincount(data.val.labels, minlength=classes).tolist()
        comparable = config.val_labels == "clean" and "cross-entropy" in (config.loss, config.meta_loss)
        return cls(
            class_counts=np.bincount(data.train.labels, minlength=classes).tolist(),
            val_counts=val_counts,
            wrong_labels=None if data.corrupted is None else int(data.corrupted.sum()),
            batch_size=config.batch_size,
            steps=sum(map(parts.expected_steps, range(len(parts.stages)))),
            cross_entropy=config.loss == "cross-entropy",
            meta_size=len(parts.meta) if comparable and isinstance(parts.meta, Examples) else None,
        )

    @cached_property
    def guessing(self) -> float:
        """Cross-entropy of a network that knows nothing: log C."""
        return math.log(len(self.class_counts))

    @cached_property
    def largest_share(self) -> float:
        """Share of the most frequent observed class."""
        return max(self.class_counts) / sum(self.class_counts)

    @cached_property
    def train_chance(self) -> float:
        """Up to where the balanced accuracy on the training examples is that of guessing."""
        counts = [count for count in self.class_counts if count]
        # the mean over the classes is 1 / C for every answer that does not depend on the example
        guess = 1 / len(counts)
        return _above(guess, math.sqrt(guess * (1 - guess) * sum(1 / count for count in counts)) / len(counts))

    @cached_property
    def val_chance(self) -> float:
        """Up to where the accuracy on the validation examples is that of guessing; 0 without them."""
        if self.val_counts is None:
            return 0.0
        size = sum(self.val_counts)
        guess = max(self.val_counts) / size
        return _above(guess, math.sqrt(guess * (1 - guess) / size))


@attrs.frozen
class Problem:
    """What has gone wrong.

    Attributes:
        problem: its short name, of `RULES`.
        epoch: when it was first seen.
        message: one line on what was seen and what to do.
    """

    problem: str
    epoch: int
    message: str

    def __str__(self) -> str:
        return f"{self.problem} (epoch {self.epoch}): {self.message}"


@attrs.define(eq=False)
class Diagnosis:
    """What is known of a run's problems, an epoch after the other.

    Args:
        setting: what the epochs are judged by.

    Attributes:
        problems: by name, each as it was first seen.
    """

    setting: Setting
    problems: dict[str, Problem] = attrs.field(factory=dict)
    _stage: list[Metrics] = attrs.field(factory=list)

    def add(self, metrics: Metrics) -> list[Problem]:
        """Look at the figures of one more epoch; return what is new. The rules see those of its stage."""
        if self._stage and self._stage[-1]["stage"] != metrics["stage"]:
            self._stage.clear()
        self._stage.append(metrics)
        found = {}
        for name, rule in RULES.items():
            message = None if name in self.problems else rule(self._stage, self.setting)
            if message is not None:
                found[name] = Problem(name, metrics["epoch"], message)
        self.problems |= found
        return list(found.values())


def diverged(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """A loss far above that of guessing, or above it where the network predicts no better than chance, stays there."""
    # a method that ignores wrong labels may let their loss grow: alone, a raised loss says nothing
    limits = [("train_loss", 2, 100), ("meta_loss", 2, 100)]
    if _has_had_time(stage) and _every(stage, lambda metrics: _knows_nothing(metrics, setting)):
        limits.append(("train_loss", EPOCHS, 2))
    for name, epochs, times in limits:
        scale, of = setting.guessing, "guessing"
        if name == "meta_loss" or not setting.cross_entropy:
            # other losses have another scale
            first = stage[0].get(name) or 0
            scale, of = max((scale, of), (first, "the first epoch"))
        if _stays_above(times * scale, name, stage[-epochs:], epochs):
            return (
                f"the {_words(name)} of {epochs} epochs in a row is above {times} times that of {of} ({scale:.3g}), "
                f"{stage[-1][name]:.4g} in the last; lower --lr, or the method's own rate if it has one"
            )
    return None


def unbounded(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """A loss is far below zero, by the size of that of guessing, and falls on."""
    for name in ("train_loss", "meta_loss"):
        losses = [metrics[name] for metrics in stage[-EPOCHS:] if metrics.get(name) is not None]
        limit = -100 * max(setting.guessing, stage[0].get(name) or 0)
        # one that has a bound far below zero slows down when it comes near
        if len(losses) == EPOCHS and max(losses) < limit and losses[-1] < 1.01 * losses[0]:
            return (
                f"the {_words(name)} of {EPOCHS} epochs in a row is below {limit:.4g} and falls on, "
                f"{losses[-1]:.4g} in the last: it seems to have no lower bound, and ever larger logits bring it down; "
                "lower --lr or --max-grad-norm, or choose another --loss"
            )
    return None


def chance(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """The accuracy is that of guessing: on the validation set, or where there is none on the training examples."""
    figure, limit = "train_balanced_accuracy", setting.train_chance
    if setting.val_counts is not None:
        figure, limit = "val_accuracy", setting.val_chance
    if not _is_late(stage, setting) or not _every(stage, lambda metrics: _at_most(metrics, figure, limit)):
        return None
    if one_class(stage, setting):
        # which says more
        return None
    return (
        f"the {_words(figure)} of {EPOCHS} epochs in a row is that of guessing, {stage[-1][figure]:.3f} in the last; "
        "try a lower --lr, and look at the labels"
    )


def one_class(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """Nearly all predictions name one class, though the labels do not."""
    if setting.largest_share >= 0.9 or not _is_late(stage, setting):
        return None
    if not _every(stage, lambda metrics: metrics.get("top_class_ratio", 0) > 0.99):
        return None
    return (
        f"{stage[-1]['top_class_ratio']:.1%} of the predictions of an epoch name one class, of which are at most "
        f"{setting.largest_share:.1%} of the labels; try a lower --lr, and look at the weights of the classes "
        "(reweight inspect RUN --classes)"
    )


def zero_weights(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """Most steps weight every example with 0, and teach nothing."""
    if not _every(stage, _weighs_nothing):
        return None
    return (
        f"every weight was 0 in {stage[-1]['zero_step_ratio']:.0%} of the steps of an epoch, and such a step teaches "
        "nothing, or clean examples alone (--meta-use both); give a larger --batch-size or --meta-batch-size, or look "
        "at the method's options"
    )


def few_examples(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """The weights leave less than a tenth of a batch."""

    def is_few(metrics: Metrics) -> bool:
        number = metrics.get("effective_examples")
        return number is not None and number < 0.1 * setting.batch_size and not _weighs_nothing(metrics)

    if not _every(stage, is_few):
        return None
    rests = f"{stage[-1]['effective_examples']:.1f} of {setting.batch_size} examples"
    return (
        f"the steps of {EPOCHS} epochs in a row rest on {rests} (effective_examples in metrics.jsonl): they are as "
        "noisy as steps of so small a batch, and training may collapse; give a lower --lr or a larger --batch-size, or "
        "bound the weights if the method has an option for it"
    )


def inverted_weights(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """Wrong labels, where they are known, weigh clearly more than right ones."""
    wrong, right = setting.wrong_labels or 0, sum(setting.class_counts) - (setting.wrong_labels or 0)
    if not wrong or not right:
        return None
    # three standard deviations of the area that weights without a meaning have
    by_chance = 0.5 - 3 * math.sqrt((wrong + right + 1) / (12 * wrong * right))

    def is_inverted(metrics: Metrics) -> bool:
        area, of_wrong, of_right = (
            metrics.get(name) for name in ("noise_auroc", "mean_weight_corrupted", "mean_weight_clean")
        )
        if area is None or of_wrong is None or of_right is None:
            return False
        # the area counts the order alone: weights that are nearly equal do no harm
        return area < min(0.35, by_chance) and of_wrong > 1.5 * max(of_right, 0)

    if not _is_late(stage, setting) or not _every(stage, is_inverted):
        return None
    ratio = f"{stage[-1]['mean_weight_corrupted']:.3g} on average, right ones {stage[-1]['mean_weight_clean']:.3g}"
    return (
        f"wrong labels weigh {ratio} (noise_auroc {stage[-1]['noise_auroc']:.2f}): the weights prefer what is wrong; "
        "give more clean examples (--meta-size), or choose another method"
    )


def meta_set_by_heart(stage: Sequence[Metrics], setting: Setting) -> str | None:
    """The meta set is predicted far better than other clean examples, and its loss is nearly 0."""
    size = setting.meta_size
    if size is None or not _is_late(stage, setting):
        return None

    def is_known(metrics: Metrics) -> bool:
        loss, accuracy = metrics.get("meta_loss"), metrics.get("val_accuracy")
        if loss is None or accuracy is None or not 0 <= loss < 0.05 * setting.guessing:
            return False
        by_chance = 3 * math.sqrt(accuracy * (1 - accuracy) / size)
        return _accuracy_at_least(loss) - accuracy > max(0.2, by_chance)

    if not _every(stage, is_known):
        return None
    loss, accuracy = stage[-1]["meta_loss"], stage[-1]["val_accuracy"]
    return (
        f"the meta loss is {loss:.3g}, so at least {_accuracy_at_least(loss):.0%} of the meta examples are predicted "
        f"right, but only {accuracy:.0%} of the validation examples: the meta set is learned by heart, and weights "
        "that follow it say little; give a larger --meta-size"
    )


RULES: Mapping[str, Callable[[Sequence[Metrics], Setting], str | None]] = {
    "diverged": diverged,
    "unbounded": unbounded,
    "chance": chance,
    "one class": one_class,
    "zero weights": zero_weights,
    "few examples": few_examples,
    "inverted weights": inverted_weights,
    "meta set by heart": meta_set_by_heart,
}
"""Name of a problem -> what says, of the epochs of a stage so far, that its last one has it, or None."""


def _every(stage: Sequence[Metrics], holds: Callable[[Metrics], bool]) -> bool:
    """Whether something holds for each of the last epochs."""
    return len(stage) >= EPOCHS and all(map(holds, stage[-EPOCHS:]))


def _has_had_time(stage: Sequence[Metrics]) -> bool:
    return bool(stage[-1]["step"] - stage[0]["step"] >= STEPS)


def _is_late(stage: Sequence[Metrics], setting: Setting) -> bool:
    return _has_had_time(stage) and stage[-1]["step"] >= setting.steps / 2


def _knows_nothing(metrics: Metrics, setting: Setting) -> bool:
    """Whether the network guesses its training examples, and the validation examples if there are any."""
    on_val = setting.val_counts is None or _at_most(metrics, "val_accuracy", setting.val_chance)
    return on_val and _at_most(metrics, "train_balanced_accuracy", setting.train_chance)


def _weighs_nothing(metrics: Metrics) -> bool:
    return metrics.get("zero_step_ratio", 0) > 0.5


def _at_most(metrics: Metrics, name: str, limit: float) -> bool:
    value = metrics.get(name)
    return value is not None and value <= limit


def _stays_above(limit: float, name: str, epochs: Sequence[Metrics], number: int) -> bool:
    """Whether a loss is above a limit in so many epochs, and did not halve in them."""
    losses = [metrics[name] for metrics in epochs if metrics.get(name) is not None]
    return len(losses) == number and min(losses) > limit and losses[-1] > losses[0] / 2


def _above(guess: float, deviation: float) -> float:
    return guess + min(DEVIATIONS * deviation, SHARE * (1 - guess))


def _accuracy_at_least(loss: float) -> float:
    """Return the least accuracy that a mean cross-entropy allows: each example that is not right has log 2 or more."""
    return 1 - loss / math.log(2)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("train", "training").replace("val ", "validation ")
