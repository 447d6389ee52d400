"""Rows of features that stay where they are."""

import pickle

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from reweight_core import Dataset, FeatureRows, MappedArray, Split, UserError, column_statistics, refuse_unusable
from reweight_core.data import examples as examples_module
from reweight_core.data import rows as rows_module
from reweight_core.data.dataset import digest_of
from reweight_core.data.examples import Examples
from reweight_core.data.planted import noise_estimate
from reweight_core.data.prepare import Plan, prepare
from reweight_core.testing import tiny_parts, train_in
from reweight_core.training.build import build_parts

CPU, COLUMNS, CLASSES = torch.device("cpu"), 5, 4


def numbers(count, dtype=np.float32, seed=0):
    return (100 * np.random.RandomState(seed).randn(count, COLUMNS) + 7).astype(dtype)


def mapped(folder, values, name="rows"):
    path = folder / f"{name}.bin"
    path.write_bytes(b"before" + values.tobytes())
    return MappedArray(path, values.dtype, values.shape, 6)


def flat(images):
    return images.reshape(images.shape[:2])


def dataset_of(rows, labels, **fields):
    array = flat(rows.read(np.arange(len(rows))) if isinstance(rows, FeatureRows) else rows).astype(np.float64)
    mean, std = tuple(array.mean(0).tolist()), tuple(array.std(0).tolist())
    return Dataset(Split(rows, labels), None, tuple("abcd"), mean, std, **fields)


@given(
    ids=st.lists(st.integers(0, 12), min_size=1, max_size=20),
    cut=st.slices(13),
    part=st.lists(st.integers(0, 19), max_size=20),
)
def test_positions_of_positions_are_those_of_an_array(ids, cut, part):
    values = numbers(13)
    rows = FeatureRows((values,))
    chosen = np.array(part)[np.array(part, int) < len(ids)].astype(int)
    assert (flat(rows[np.array(ids)][chosen].read(np.arange(len(chosen)))) == values[np.array(ids)][chosen]).all()
    assert (flat(rows[cut].read(np.arange(len(rows[cut])))) == values[cut]).all()
    assert rows[np.array(ids)].shape == (len(ids), COLUMNS, 1, 1)


def test_one_set_behind_another_reads_as_the_arrays_do(tmp_path):
    one, other = numbers(7), numbers(4, seed=1)
    first, second = FeatureRows((mapped(tmp_path, one),)), FeatureRows((other,))
    ids = np.array([10, 0, 3, 8, 1, 7])
    joint = first[np.array([6, 2, 4, 0])].followed_by(second[np.array([3, 1, 0])]).followed_by(first)
    expected = np.concatenate([one[[6, 2, 4, 0]], other[[3, 1, 0]], one])
    assert (flat(joint.read(ids)) == expected[ids]).all() and len(joint) == 14
    assert (np.concatenate([*joint.chunks(3)]) == expected).all()
    # of the same file, there are only more positions
    assert first[:3].followed_by(first[5:]).parts == first.parts


def test_rows_in_a_file_are_neither_read_nor_copied_to_be_chosen(tmp_path):
    rows = FeatureRows((mapped(tmp_path, numbers(50)),))
    split = Split(rows, np.arange(50) % CLASSES)
    taken = split.take(np.arange(20)).followed_by(split.take(np.arange(20, 50)))
    assert taken.images.parts == rows.parts
    assert "array" not in vars(rows.parts[0])  # not even mapped yet


def test_another_process_maps_the_file_itself(tmp_path):
    values = numbers(20_000)
    rows = FeatureRows((mapped(tmp_path, values),))
    rows.read(np.arange(3))
    sent = pickle.dumps(rows)
    assert len(sent) < 2000 < values.nbytes
    assert (flat(pickle.loads(sent).read(np.array([19_999]))) == values[19_999:]).all()


@given(
    values=st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64]).flatmap(
        lambda dtype: arrays(
            dtype,
            st.tuples(st.integers(1, 30), st.just(3)),
            elements=st.floats(-100, 100, width=16) if dtype in (np.float16, np.float32, np.float64) else None,
        )
    ),
    chunk=st.sampled_from([1, 4, 512]),
)
def test_statistics_are_those_of_the_whole_array(values, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module.FeatureRows.chunks, "__defaults__", (chunk,))
        mean, std = column_statistics(FeatureRows((values,)), "here")
    exact = values.astype(np.float64)
    spread = np.where((values == values[0]).all(0) | (exact.std(0) == 0), 1, exact.std(0))
    scale = np.abs(exact).max(0) + 1e-30
    assert np.allclose(np.array(mean) / scale, exact.mean(0) / scale, rtol=0, atol=1e-6)
    assert np.allclose(std, spread, rtol=1e-4)


def test_numbers_whose_squares_single_precision_cannot_hold_have_statistics():
    values = np.array([[3e30, 1.0], [1e30, 1.0], [2e30, 1.0]], np.float32)
    mean, std = column_statistics(FeatureRows((values,)), "here")
    assert mean == pytest.approx((2e30, 1)) and std == pytest.approx((values[:, 0].astype(float).std(), 1))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_finite_number_is_named_by_its_place(wrong):
    values = numbers(1000, np.float16)
    values[700, 2] = wrong
    place = f"train.npy, row 700, column 2: {wrong} is no finite number"
    with pytest.raises(UserError) as of_train:
        column_statistics(FeatureRows((values,)), "train.npy")
    with pytest.raises(UserError) as of_test:
        refuse_unusable(FeatureRows((values,)), (0,) * COLUMNS, (1,) * COLUMNS, "train.npy")
    assert str(of_train.value) == str(of_test.value) == place


def test_a_number_far_from_those_of_the_training_set_is_refused():
    values = np.array([[1.0, 2.0], [1e300, 3.0]])
    with pytest.raises(UserError, match=r"test\.npy, row 1, column 0: 1e\+300 is too large"):
        refuse_unusable(FeatureRows((values,)), (0, 0), (1, 1), "test.npy")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.uint8])
def test_batches_are_standardised_from_whatever_type_is_stored(dtype):
    values = np.abs(numbers(30)).clip(0, 255).astype(dtype)
    dataset = dataset_of(FeatureRows((values,)), np.arange(30) % CLASSES)
    examples = Examples(dataset.train, dataset, CPU, torch.float32)
    ids = torch.tensor([4, 29, 0])
    expected = (values.astype(np.float64) - dataset.mean) / dataset.std
    batch = examples.batch(ids, torch.Generator())
    assert batch.inputs.shape == (3, COLUMNS, 1, 1) and batch.inputs.dtype == torch.float32
    assert np.allclose(flat(batch.inputs.numpy()), expected[ids.numpy()], atol=2e-6)
    in_order = torch.cat([b.inputs for b in examples.in_order(7, 2)])
    assert np.allclose(flat(in_order.numpy()), expected, atol=2e-6)


def test_large_numbers_keep_their_small_differences():
    times = 1_700_000_000 + np.arange(100, dtype=np.float64)[:, None]
    dataset = dataset_of(FeatureRows((times,)), np.arange(100) % CLASSES)
    batch = Examples(dataset.train, dataset, CPU, torch.float32).batch(torch.arange(100), None)
    assert len(batch.inputs.unique()) == 100


@pytest.mark.parametrize("place", ["memory", "disk", "device"])
def test_a_run_on_mapped_rows_is_that_on_an_array(place, tmp_path, monkeypatch):
    if place == "disk":
        # then two processes read ahead of the steps
        monkeypatch.setattr(rows_module, "total_memory", lambda: 0)
    if place == "device":
        monkeypatch.setattr(examples_module, "_fits", lambda rows, device: True)
        monkeypatch.setattr(examples_module, "ROWS", 7)
    values, labels = numbers(120), np.arange(120) % CLASSES
    config = tiny_parts("erm", model="linear", epochs=2, workers=2).config

    def run(images, name):
        data = prepare(dataset_of(images, labels), Plan(test=0.2, meta_size=8))
        parts = build_parts(config, data)
        assert parts.train.is_read_ahead == (place == "disk" and name == "mapped")
        assert (parts.train.stored is None) == (place == "device" or name == "array")
        train_in(tmp_path / name, parts)
        weights = {key: tensor.numpy() for key, tensor in parts.model.state_dict().items()}
        return weights | load_file(tmp_path / name / "samples.safetensors")

    one = run(FeatureRows((mapped(tmp_path, values),)), "mapped")
    other = run(values[:, :, None, None], "array")
    assert one.keys() == other.keys() and len(one) > 5
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_what_a_set_is_known_by_follows_its_numbers(tmp_path):
    values, labels = numbers(9), np.arange(9)
    split = Split(FeatureRows((mapped(tmp_path, values),)), labels)
    changed = values.copy()
    changed[8, 4] += 1
    assert digest_of(split) == digest_of(Split(FeatureRows((values,)), labels))
    assert digest_of(split) != digest_of(Split(FeatureRows((changed,)), labels))


def test_noise_is_estimated_from_the_nearest_rows_as_from_those_of_an_array():
    values, labels = numbers(300), np.random.RandomState(1).randint(CLASSES, size=300)
    clean = np.arange(0, 300, 7)

    def estimate(images):
        split = Split(images, labels)
        return noise_estimate(split, split.take(clean), CLASSES)

    assert np.array_equal(estimate(FeatureRows((values,))), estimate(values[:, :, None, None]))


def test_noise_that_looks_at_examples_sees_them_standardised():
    values, labels, seen = numbers(40, np.float16), np.arange(40) % CLASSES, []
    dataset = dataset_of(FeatureRows((values,)), labels)

    def corrupt(labels, classes, rng, images):
        seen.append(images)
        return labels

    data = prepare(dataset, Plan(test="none", corrupt=corrupt, noise_needs_images=True))
    expected = (values.astype(np.float64) - dataset.mean) / dataset.std
    assert np.allclose(flat(seen[0]), expected[data.ids], atol=1e-6)


@pytest.mark.parametrize("other", [np.zeros((8, COLUMNS, 1, 1), np.float32), FeatureRows((numbers(8)[:, :3],))])
def test_splits_of_two_kinds_or_widths_are_refused(other):
    dataset = dataset_of(FeatureRows((numbers(8),)), np.arange(8) % CLASSES)
    with pytest.raises(UserError, match=r"the dataset's test\.images must be"):
        attrs.evolve(dataset, test=Split(other, dataset.train.labels))
