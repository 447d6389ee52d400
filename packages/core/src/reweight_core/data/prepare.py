"""From a clean dataset to the data of a run: test, meta and validation set, label noise, long tail, in this order.

The order is that of GDW's official loader. All draws come from numpy's RandomState, whose stream never changes, so
the same options give the same data on every machine.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import attrs
import numpy as np

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.folds import in_fold, refuse_lost_class
from reweight_core.data.overlap import refuse_overlap
from reweight_core.data.rows import FeatureRows
from reweight_core.data.seeds import Stream, random_state
from reweight_core.errors import UserError
from reweight_core.machine.device import total_memory

Corruption = Callable[..., np.ndarray]
"""``corrupt(labels, num_classes, rng) -> labels``: int64 arrays of shape (N,), all draws from `rng`.

A kind that needs them gets the images as a further argument, as the dataset has them: (N, channels, height, width); one
that needs it gets the mask of the examples in the dataset's training set: bool (M,), N of it true.
"""


class NoTestSetError(UserError):
    """A plan asks for the dataset's own test set, and it has none."""


@attrs.frozen
class Plan:
    """What is done to a dataset before training.

    Attributes:
        seed: seed of the split and the corruption.
        corrupt: the label noise, or None.
        imb: size of the smallest class / size of the largest, or None for the sizes as they are.
        meta_size: clean meta examples; None for the dataset's own set, if it has one, and none otherwise.
        meta_draw: how they are drawn.
        val_size: validation examples.
        val_labels: whether they have clean labels, or observed ones like the training set.
        val_fold: (K, N) to take the K-th of N parts of the meta set as the validation set, or of the training set with
            its observed labels where there is no meta set; None for no such part.
        test: the test set: the dataset's ``own``, ``none``, or the share of every class that is held out for it.
        noise_needs_images: whether the label noise is given the images too.
        noise_needs_mask: whether it is given the mask of the examples too.
    """

    seed: int = 0
    corrupt: Corruption | None = None
    imb: float | None = None
    meta_size: int | None = None
    meta_draw: Literal["balanced", "random"] = "balanced"
    val_size: int = 0
    val_labels: Literal["clean", "observed"] = "clean"
    val_fold: tuple[int, int] | None = None
    test: Literal["own", "none"] | float = "own"
    noise_needs_images: bool = False
    noise_needs_mask: bool = False


@attrs.frozen(eq=False)
class PreparedData:
    """The data of a run.

    Attributes:
        dataset: the dataset they were made from.
        train: training examples; its labels are the observed (possibly corrupted) ones.
        ids: positions of the training examples in ``dataset.train``, ascending, shape (N,); behind them those of the
            trusted ones, if there are any, which in ``dataset.meta`` are counted on from the end of ``dataset.train``.
        true_labels: int64 (N,); -1 where the true label is unknown.
        meta: clean examples disjoint from training, class-balanced unless drawn at random or the dataset's own set is
            used whole, or None.
        meta_ids: their positions, in ``dataset.meta`` if there is one, else in ``dataset.train``, shape (M,).
        val: examples disjoint from both, with clean or observed labels, class-balanced unless they are a fold, or None.
        test: test examples, or None.
        fingerprint: SHA-256 (hex) of everything that was drawn: ids, names and observed labels, meta and validation
            ids, and test ids if the test set was, and of `Dataset.representation`. The images themselves are not in it.
        trusted: which training examples are trusted ones, bool (N,), or None where none is (``--meta-use both``).
        planted: which are planted ones, bool (N,), or None where none is (``--plant``).
    """

    dataset: Dataset
    train: Split
    ids: np.ndarray
    true_labels: np.ndarray
    meta: Split | None
    meta_ids: np.ndarray
    val: Split | None
    test: Split | None
    fingerprint: str
    trusted: np.ndarray | None = None
    planted: np.ndarray | None = None

    @property
    def corrupted(self) -> np.ndarray | None:
        """Whether each training example's observed label is wrong, bool (N,); None where true labels are unknown."""
        return None if (self.true_labels < 0).any() else self.true_labels != self.train.labels

    @property
    def noise_rate(self) -> float | None:
        """Share of training labels that are wrong; None where true labels are unknown."""
        return None if self.corrupted is None else float(np.mean(self.corrupted))

    def transition(self) -> np.ndarray | None:
        """Realised noise: entry (i, j) is the share of class i that is observed as class j; (C, C) or None."""
        if (self.true_labels < 0).any():
            return None
        classes = len(self.dataset.classes)
        counts = np.zeros((classes, classes))
        np.add.at(counts, (self.true_labels, self.train.labels), 1)
        return counts / counts.sum(axis=1, keepdims=True)


def prepare(dataset: Dataset, plan: Plan) -> PreparedData:
    """Take the test, meta and validation sets, corrupt the labels, cut the long tail.

    Raises:
        NoTestSetError: if there is no test set.
        UserError: if a class has too few examples for what is asked.
    """
    classes = len(dataset.classes)
    corrupt = plan.corrupt
    refuse_overlap(dataset)
    split_rng = np.random.RandomState(plan.seed)
    noise_rng = random_state(plan.seed, Stream.NOISE)

    pools = _shuffled_by_class(dataset.train.labels, classes, split_rng)
    test, test_ids, pools = _take_test(dataset, plan, pools)
    if dataset.meta is None:
        meta_ids, pools = _take_meta(pools, plan, dataset.classes, leave=1, rng=split_rng)
        meta = dataset.train.take(meta_ids) if len(meta_ids) else None
        if meta is not None and not dataset.trusted and corrupt is None:
            warnings.warn(
                f"--meta-size {plan.meta_size}: the labels of these training examples are trusted to be clean",
                stacklevel=2,
            )
    elif plan.meta_size is None:
        meta_ids, meta = np.arange(len(dataset.meta)), dataset.meta
    else:
        meta_pools = _shuffled_by_class(dataset.meta.labels, classes, split_rng)
        meta_ids, _ = _take_meta(meta_pools, plan, dataset.classes, leave=0, rng=split_rng)
        meta = dataset.meta.take(meta_ids) if len(meta_ids) else None
    observed_val = plan.val_labels == "observed" and plan.val_size > 0
    val_ids = np.empty(0, np.int64)
    if not observed_val:
        val_ids, pools = _take_balanced(pools, plan.val_size, "validation", dataset.classes, leave=1)

    labels = (dataset.train.labels if dataset.observed is None else dataset.observed).copy()
    rest = np.sort(np.concatenate(pools))
    if corrupt is not None:
        further = [_in_memory(dataset, rest)] if plan.noise_needs_images else []
        if plan.noise_needs_mask:
            further.append(np.isin(np.arange(len(labels)), rest))
        labels[rest] = corrupt(labels[rest], classes, noise_rng, *further)

    if observed_val:
        by_observed = [rest[part] for part in _shuffled_by_class(labels[rest], classes, split_rng)]
        val_ids, _ = _take_balanced(by_observed, plan.val_size, "validation", dataset.classes, leave=1)
        pools = [pool[~np.isin(pool, val_ids)] for pool in pools]

    if plan.imb is not None:
        counts = long_tail_counts(min(map(len, pools)), classes, plan.imb)
        if counts[-1] == 0:
            raise UserError(
                f"--imb {plan.imb}: the smallest class would keep int({counts[0]} * {plan.imb}) = 0 examples; "
                "give a larger value"
            )
        pools = [pool[:count] for pool, count in zip(pools, counts, strict=True)]
    ids = np.sort(np.concatenate(pools))

    val = _with_labels(dataset.train, val_ids, labels if observed_val else dataset.train.labels)
    if plan.val_fold is not None:
        fold = in_fold(labels[ids] if meta is None else meta.labels, plan.val_fold, plan.seed)
        held_out, rest = np.flatnonzero(fold), np.flatnonzero(~fold)
        if meta is None:
            refuse_lost_class(dataset.train.labels[ids], fold, plan.val_fold, dataset.classes)
            observed_val, val_ids, ids = True, ids[held_out], ids[rest]
            val = _with_labels(dataset.train, val_ids, labels)
        else:
            val_ids, val, meta_ids = meta_ids[held_out], meta.take(held_out), meta_ids[rest]
            meta = meta.take(rest) if len(rest) else None

    drawn = [ids, labels[ids], meta_ids, val_ids]
    if observed_val:
        drawn.append(labels[val_ids])
    if len(test_ids):
        drawn.append(test_ids)
    if dataset.meta is not None and meta is not None:
        drawn.append(meta.labels)
    if dataset.meta is not None and plan.val_fold is not None and val is not None:
        drawn.append(val.labels)
    train = dataset.train.take(ids)
    known = dataset.trusted or corrupt is not None
    return PreparedData(
        dataset=dataset,
        train=attrs.evolve(train, labels=labels[ids]),
        ids=ids,
        true_labels=train.labels if known else np.full(len(ids), -1),
        meta=meta,
        meta_ids=meta_ids,
        val=val,
        test=test,
        fingerprint=_fingerprint(drawn, [train.names, meta.names if meta else None], dataset.representation),
    )


def _with_labels(split: Split, ids: np.ndarray, labels: np.ndarray) -> Split | None:
    """Return the examples at some positions with these labels of the whole split, or None if there are none."""
    return attrs.evolve(split.take(ids), labels=labels[ids]) if len(ids) else None


def _in_memory(dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    """Return the training images that noise is to see; of stored features the standardised ones."""
    images = dataset.train.images
    if isinstance(images, np.ndarray):
        return images[ids]
    if isinstance(images, FeatureRows) and 8 * len(ids) * images.shape[1] <= total_memory() / 2:
        found: np.ndarray = (images.read(ids)[:, :, 0, 0] - np.array(dataset.mean)) / np.array(dataset.std)
        return found.astype(np.float32)[:, :, None, None]
    raise UserError(
        "--noise: this kind looks at the images, which are read while training here; give --stream off, if the "
        "dataset has it, or another kind"
    )


def _fingerprint(
    drawn: Sequence[np.ndarray], names: Sequence[tuple[str, ...] | None], representation: str | None
) -> str:
    digest = hashlib.sha256((representation or "").encode())
    for of_set in names:
        # where a plugin draws a subset or lists files itself, the names say which
        digest.update("\0".join(of_set or ()).encode() + b"|")
    for part in drawn:
        digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes() + b"|")
    return digest.hexdigest()


def long_tail_counts(largest: int, classes: int, imb: float) -> list[int]:
    """Return int(largest * imb^(i/(C-1))) for each class i (Cui et al., CVPR 2019; GDW section 4.2)."""
    return [int(largest * imb ** (i / (classes - 1))) for i in range(classes)]


def _shuffled_by_class(labels: np.ndarray, classes: int, rng: np.random.RandomState) -> list[np.ndarray]:
    return [rng.permutation(np.flatnonzero(labels == c)) for c in range(classes)]


def test_set(dataset: Dataset, plan: Plan) -> Split | None:
    """Return the test set of a run with this plan, the same one as `prepare` (which says what can go wrong)."""
    pools = _shuffled_by_class(dataset.train.labels, len(dataset.classes), np.random.RandomState(plan.seed))
    return _take_test(dataset, plan, pools)[0]


def _take_test(
    dataset: Dataset, plan: Plan, pools: list[np.ndarray]
) -> tuple[Split | None, np.ndarray, list[np.ndarray]]:
    """Return the test set, the positions of its examples if it is taken off the pools, and the pools that remain."""
    nothing = np.empty(0, dtype=np.int64)
    if plan.test == "none":
        return None, nothing, pools
    if plan.test == "own":
        if dataset.test is None:
            raise NoTestSetError(
                "there is no test set; give --test-from split:0.1 to hold out a tenth of the training set, "
                "or --test-from none"
            )
        _tell_missing_classes(dataset.test, dataset.classes)
        return dataset.test, nothing, pools
    counts = [max(1, round(plan.test * len(pool))) for pool in pools]
    for pool, count, name in zip(pools, counts, dataset.classes, strict=True):
        if count >= len(pool):
            raise UserError(f"--test-from split:{plan.test}: leaves no example of class '{name}' for training")
    ids = np.concatenate([pool[:count] for pool, count in zip(pools, counts, strict=True)])
    return dataset.train.take(ids), ids, [pool[count:] for pool, count in zip(pools, counts, strict=True)]


def _tell_missing_classes(test: Split, names: tuple[str, ...]) -> None:
    missing = np.flatnonzero(np.bincount(test.labels, minlength=len(names)) == 0)
    if len(missing):
        more = f" and of {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.warn(
            f"the test set has no example of class '{names[missing[0]]}'{more}: its figures are of the other classes",
            stacklevel=4,
        )


def _take_meta(
    pools: list[np.ndarray], plan: Plan, names: tuple[str, ...], leave: int, rng: np.random.RandomState
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Take the meta set off the pools in the way that is asked for (arguments as `_take_balanced`)."""
    size = plan.meta_size or 0
    if plan.meta_draw == "balanced" or size == 0:
        return _take_balanced(pools, size, "meta", names, leave)
    everything = np.concatenate(pools)
    if size > len(everything):
        raise UserError(f"--meta-size {size}: there are only {len(everything)} examples to take the meta set from")
    taken = rng.permutation(everything)[:size]
    rest = [pool[~np.isin(pool, taken)] for pool in pools]
    for pool, name in zip(rest, names, strict=True):
        if len(pool) < leave:
            raise UserError(f"--meta-size {size}: a random draw leaves no example of class '{name}' for training")
    return taken, rest


def _take_balanced(
    pools: list[np.ndarray], size: int, what: str, names: tuple[str, ...], leave: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Take `size` examples off the pools, equally from each class; a remainder goes to the first classes.

    At least `leave` examples of every class stay behind.
    """
    flag = "--meta-size" if what == "meta" else "--val-size"
    classes, available = len(pools), sum(map(len, pools))
    if size == 0:
        return np.empty(0, dtype=np.int64), pools
    if size < classes:
        raise UserError(f"{flag} {size}: a balanced {what} set needs at least one of each of the {classes} classes")
    if size > available:
        raise UserError(f"{flag} {size}: there are only {available} examples to take the {what} set from")
    shares = [size // classes + (c < size % classes) for c in range(classes)]
    for pool, share, name in zip(pools, shares, names, strict=True):
        if share > len(pool) - leave:
            raise UserError(
                f"{flag} {size}: takes {share} of class '{name}', which has only {len(pool)} examples"
                + " (one must stay for training)" * leave
            )
    taken = np.concatenate([pool[:share] for pool, share in zip(pools, shares, strict=True)])
    return taken, [pool[share:] for pool, share in zip(pools, shares, strict=True)]
