"""``--plant``: clean examples among the training examples, every second one with a wrong label."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sklearn.datasets import make_blobs
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.images import ImageFiles
from reweight_core.data.planted import NEIGHBOURS, noise_estimate, with_planted
from reweight_core.data.prepare import Plan, prepare
from reweight_core.data.trusted import with_trusted
from reweight_core.errors import UserError
from reweight_core.testing import tiny_parts, train_in

CLASSES = 4


def blobs(per_class=50, spread=1.0):
    values, labels = make_blobs(CLASSES * per_class, 5, centers=CLASSES, cluster_std=spread, random_state=4)
    # of one feature, the unit is a thousandth of that of the others
    values[:, 0] *= 1000
    return Split(values.astype(np.float32).reshape(-1, 5, 1, 1), labels.astype(np.int64))


def next_class(labels, num_classes, rng):
    return np.where(rng.uniform(size=len(labels)) < 0.4, (labels + 1) % num_classes, labels)


def prepared(seed=0, **plan):
    dataset = Dataset(blobs(), None, tuple("abcd"), mean=(0.0,) * 5, std=(1.0,) * 5)
    return prepare(dataset, Plan(**{"seed": seed, "test": "none", "meta_size": 24, "corrupt": next_class} | plan))


@given(count=st.integers(1, 24), seed=st.integers(0, 2**32 - 2))
def test_they_leave_the_meta_set_and_every_second_one_has_a_wrong_label(count, seed):
    before = prepared()
    data = with_planted(before, count, seed, leave=False)
    planted = data.train.take(np.flatnonzero(data.planted))
    assert data.planted.tolist() == [False] * len(before.train) + [True] * count
    rows = {row.tobytes() for row in planted.images}
    left = set() if data.meta is None else {row.tobytes() for row in data.meta.images}
    assert not rows & left and rows | left == {row.tobytes() for row in before.meta.images}
    true = data.true_labels[data.planted]
    wrong = planted.labels != true
    of_class = [wrong[true == c] for c in range(CLASSES)]
    # each class has as many wrong ones as right ones, or one more of either, and so have all
    assert all(abs((~w).sum() - w.sum()) <= 1 for w in of_class)
    assert abs((~wrong).sum() - wrong.sum()) <= 1 + count % CLASSES
    assert np.array_equal(before.dataset.train.labels[data.ids[data.planted]], true)
    counts = np.bincount(true, minlength=CLASSES)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(with_planted(before, count, seed, leave=False).train.labels, data.train.labels)


def test_the_estimate_counts_the_labels_of_nearest_neighbours():
    data = prepared()
    images = {
        name: split.images.reshape(len(split), -1) for name, split in (("train", data.train), ("meta", data.meta))
    }
    scaler = StandardScaler().fit(images["train"])
    near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(scaler.transform(images["train"]))
    found = near.kneighbors(scaler.transform(images["meta"]), return_distance=False)
    wanted = np.tile(np.bincount(data.train.labels, minlength=CLASSES) / len(data.train), (CLASSES, 1))
    for label, row in zip(data.meta.labels, found, strict=True):
        for position in row:
            wanted[label, data.train.labels[position]] += 1
    np.fill_diagonal(wanted, 0)
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(noise_estimate(data.train, data.meta, CLASSES), wanted, atol=1e-6)


def test_it_finds_which_classes_are_mistaken_for_which():
    estimate = noise_estimate(prepared().train, prepared().meta, CLASSES)
    assert estimate.argmax(1).tolist() == [1, 2, 3, 0]
    assert estimate.max(1).min() > 0.9


def test_images_in_files_are_not_compared():
    train = Split(ImageFiles(Path(), np.array(list("abcdef")), 8), np.array([0, 0, 0, 1, 1, 2]))
    estimate = noise_estimate(train, train.take(np.array([0])), 3)
    np.testing.assert_allclose(estimate, [[0, 2 / 3, 1 / 3], [3 / 4, 0, 1 / 4], [3 / 5, 2 / 5, 0]])


@pytest.mark.parametrize(("count", "leave", "problem"), [(25, False, "only 24 clean"), (21, True, "needs 4 of them")])
def test_more_than_there_are_is_refused(count, leave, problem):
    with pytest.raises(UserError, match=problem):
        with_planted(prepared(), count, seed=0, leave=leave)


def test_without_clean_examples_it_is_refused():
    with pytest.raises(UserError, match="--plant 4: there are no clean examples to plant"):
        tiny_parts("erm", plant=4, meta_set=False)


def test_trusted_examples_that_are_trained_on_are_others():
    data = with_trusted(with_planted(prepared(), 8, 0, leave=False), 0, hold_out=True)
    assert not (data.planted & data.trusted).any()
    assert [data.planted.sum(), data.trusted.sum(), len(data.meta)] == [8, 8, 8]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_tells_which_they_are(tmp_path):
    parts = tiny_parts("erm", plant=4, model="mlp", epochs=2)
    train_in(tmp_path / "run", parts)
    samples = load_file(tmp_path / "run" / "samples.safetensors")
    assert np.array_equal(samples["planted"], parts.data.planted) and samples["planted"].sum() == 4
    assert (samples["visits"][samples["planted"]] == 2).all()
    wrong = samples["observed"] != samples["true"]
    assert wrong[samples["planted"]].sum() == 2
