import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from sklearn.metrics import f1_score

from reweight_core import MappedArray, UserError, configure, evaluate, fitting_defaults, load_data, predict, train
from reweight_core import load as load_run
from reweight_core.testing import DataSuite
from reweight_data_own import arrays
from reweight_data_own.features import load, read_new
from reweight_data_own.options import FeaturesOptions

ROWS, COLUMNS = 60, 4
VALUES = (10 * np.random.RandomState(0).randn(ROWS, COLUMNS)).astype(np.float16)
TRUE = np.arange(ROWS) % 3
SEEN = np.where(np.random.RandomState(1).rand(ROWS) < 0.4, (TRUE + 1) % 3, TRUE)


def write_npy(root, part, values, seen, true=None):
    np.save(root / f"{part}.npy", values)
    np.save(root / f"{part}_labels.npy", seen)
    if true is not None:
        np.save(root / f"{part}_true_labels.npy", true)


def write_npz(root, part, values, seen, true=None):
    np.savez(root / f"{part}.npz", x=values, y=seen, **({} if true is None else {"true_labels": true}))


def write_compressed_npz(root, part, values, seen, true=None):
    np.savez_compressed(
        root / f"{part}.npz", features=values, labels=seen, **({} if true is None else {"true_labels": true})
    )


def write_safetensors(root, part, values, seen, true=None):
    further = {} if true is None else {"true_labels": true}
    save_file({"embeddings": values, "labels": seen, **further}, root / f"{part}.safetensors")


def write_text_labels(root, part, values, seen, true=None):
    save_file({"embeddings": values}, root / f"{part}.safetensors")
    for name, labels in (("labels", seen), ("true_labels", true)):
        if labels is not None:
            (root / f"{part}_{name}.txt").write_text("\n".join(map(str, labels)) + "\n")


def write_columns(root, part, values, seen, true=None):
    columns = {f"f{i}": column for i, column in enumerate(values.T)} | {"label": seen}
    further = {} if true is None else {"true_label": true}
    pq.write_table(pa.table(columns | further), root / f"{part}.parquet", row_group_size=7)


def write_embeddings(root, part, values, seen, true=None):
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    further = {} if true is None else {"true_label": true}
    pq.write_table(pa.table({"embedding": column, "label": seen} | further), root / f"{part}.parquet", row_group_size=7)


def write_lists(root, part, values, seen, true=None):
    column = pa.array(values.astype(np.float64).tolist())
    further = {} if true is None else {"true_label": true}
    pq.write_table(pa.table({"embedding": column, "label": seen} | further), root / f"{part}.parquet")


WRITERS = [
    write_npy,
    write_npz,
    write_compressed_npz,
    write_safetensors,
    write_text_labels,
    write_columns,
    write_embeddings,
    write_lists,
]
MAPPED = (write_npy, write_npz, write_safetensors, write_text_labels)


def read(root, **options):
    return load(FeaturesOptions(data_root=root, **options))


def refusal(root, **options):
    with pytest.raises(UserError) as refused:
        read(root, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def values_of(split):
    return split.images.read(np.arange(len(split)))[:, :, 0, 0]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_data(write, tmp_path):
    write(tmp_path, "train", VALUES, SEEN, TRUE)
    write(tmp_path, "test", VALUES[:9], TRUE[:9])
    dataset = read(tmp_path)
    assert np.array_equal(values_of(dataset.train), VALUES) and np.array_equal(values_of(dataset.test), VALUES[:9])
    assert (dataset.train.labels == TRUE).all() and (dataset.observed == SEEN).all() and dataset.trusted
    assert (dataset.test.labels == TRUE[:9]).all() and dataset.meta is None
    assert dataset.classes == ("0", "1", "2") and dataset.input_shape == (COLUMNS, 1, 1)
    exact = VALUES.astype(np.float64)
    assert np.allclose(dataset.mean, exact.mean(0), atol=1e-5) and np.allclose(dataset.std, exact.std(0), rtol=1e-5)
    assert isinstance(dataset.train.images.parts[0], MappedArray) == (write in MAPPED)
    assert dataset.train.images.dtype == (np.float64 if write is write_lists else np.float16)


def test_real_noise_is_measured_and_clean_sets_are_clean(tmp_path):
    write_npy(tmp_path, "train", VALUES, SEEN, TRUE)
    data = load_data(configure(data="features", data_root=tmp_path, test_from="split:0.1", meta_size=6))
    assert (data.train.labels == SEEN[data.ids]).all() and (data.true_labels == TRUE[data.ids]).all()
    assert data.noise_rate == (SEEN != TRUE)[data.ids].mean() > 0
    assert (data.meta.labels == TRUE[data.meta_ids]).all()
    # all of them are positions in one mapping
    assert {id(split.images.parts[0]) for split in (data.train, data.meta, data.test)} == {
        id(data.train.images.parts[0])
    }


def test_a_meta_set_may_be_of_another_type(tmp_path):
    write_npy(tmp_path, "train", VALUES, SEEN)
    write_safetensors(tmp_path, "meta", VALUES[:12].astype(np.float64), TRUE[:12])
    config = configure(data="features", data_root=tmp_path, test_from="none")
    data = load_data(config)
    joint = data.train.followed_by(data.meta)
    assert np.array_equal(values_of(joint), np.concatenate([VALUES, VALUES[:12]])) and data.noise_rate is None


@pytest.mark.parametrize("write", [write_npy, write_columns, write_text_labels], ids=lambda write: write.__name__)
def test_labels_may_be_texts_and_classes_are_in_order(write, tmp_path):
    write(tmp_path, "train", VALUES, np.array(["b", "ä", "c"])[SEEN])
    dataset = read(tmp_path)
    assert dataset.classes == ("b", "c", "ä") and (dataset.train.labels == np.array([0, 2, 1])[SEEN]).all()
    assert not dataset.trusted and dataset.observed is None


def test_numbers_in_texts_and_gaps_between_numbers(tmp_path):
    write_text_labels(tmp_path, "train", VALUES, np.array([9, 10, 200])[SEEN])
    assert read(tmp_path).classes == ("9", "10", "200")
    assert (read(tmp_path).train.labels == SEEN).all()
    (tmp_path / "train_labels.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["a\u2028b", "c\x0cd"] * 30).encode())
    assert read(tmp_path).classes == ("a\u2028b", "c\x0cd")


def test_options_name_what_is_called_otherwise(tmp_path):
    other = np.zeros_like(VALUES)
    np.savez(tmp_path / "train.npz", x=VALUES, other=other, target=SEEN, gold=TRUE)
    assert "several arrays of two dimensions (x, other); name one by --feature-column" in refusal(tmp_path)
    names = {"feature_column": ("x",), "label_column": "target", "true_label_column": "gold"}
    dataset = read(tmp_path, **names)
    assert np.array_equal(values_of(dataset.train), VALUES) and (dataset.observed == SEEN).all()
    (tmp_path / "train.npz").unlink()
    table = {f"f{i}": column for i, column in enumerate(VALUES.T)} | {"url": ["x"] * ROWS, "target": SEEN, "gold": TRUE}
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    assert "url is no column of numbers (string): name those that are by --feature-column" in refusal(
        tmp_path, **names | {"feature_column": ()}
    )
    dataset = read(tmp_path, **names | {"feature_column": ("f2", "f0")})
    assert np.array_equal(values_of(dataset.train), VALUES[:, [2, 0]])


def test_what_is_not_used_may_be_anything(tmp_path):
    np.savez(tmp_path / "train.npz", x=VALUES, y=SEEN, notes=object_array(), by_column=np.eye(3, order="F")[0])
    assert np.array_equal(values_of(read(tmp_path).train), VALUES)
    (tmp_path / "train.npz").unlink()
    save_torch(
        {"x": torch.from_numpy(VALUES), "y": torch.from_numpy(SEEN), "z": torch.zeros(3).bfloat16()},
        tmp_path / "train.safetensors",
    )
    assert np.array_equal(values_of(read(tmp_path).train), VALUES)
    save_torch({"x": torch.zeros(ROWS, 2).bfloat16(), "y": torch.from_numpy(SEEN)}, tmp_path / "train.safetensors")
    assert "train.safetensors, x: numbers of type BF16 are not read; save F16 or F32" in refusal(tmp_path)


def with_value(row, column, value):
    values = VALUES.copy()
    values[row, column] = value
    return values


def object_array():
    return np.array([{"a": 1}, None], dtype=object)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (VALUES, SEEN[:-1], "train_labels.npy: has 59 labels for 60 rows of features"),
        (VALUES, SEEN.astype(np.float32), "train_labels.npy: labels must be whole numbers or texts, not float32"),
        (
            VALUES,
            np.where(np.arange(ROWS) == 4, -1, SEEN),
            "train_labels.npy, row 4: label -1 is negative; leave rows without a label out",
        ),
        (VALUES, np.where(np.arange(ROWS) == 4, "-1", SEEN.astype(str)), "row 4: label -1 is negative; leave rows"),
        (VALUES, np.where(SEEN == 0, "", "a"), "the label is empty"),
        (VALUES, np.eye(3)[SEEN], "labels must be one for each row, not an array of shape (60, 3)"),
        (VALUES, 0 * SEEN, "the data have 1 class"),
        (VALUES, np.where(np.arange(ROWS) % 2, "01", "1"), "two labels are the same number, 1"),
        (object_array(), SEEN, "train.npy: holds Python objects, whose pickle could run code: save numbers or texts"),
        (VALUES, object_array(), "train_labels.npy: holds Python objects"),
        (VALUES[0], SEEN, "train.npy: features must have two dimensions (rows, columns), not shape (4,)"),
        (np.asfortranarray(VALUES), SEEN, "train.npy: is stored by columns: save np.ascontiguousarray(x)"),
        (VALUES.astype(">f4"), SEEN, "is in another machine's order of bytes (>f4): convert it"),
        (VALUES.astype(complex), SEEN, "features must be numbers of at most 64 bits, not complex128"),
        (VALUES[:0], SEEN[:0], "train.npy: is empty, of shape (0, 4)"),
        (with_value(7, 1, np.nan), SEEN, "train.npy, row 7, column 1: nan is no finite number"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(features, labels, message, tmp_path):
    write_npy(tmp_path, "train", features, labels)
    assert message in refusal(tmp_path)


def test_other_parts_must_fit_the_training_set(tmp_path):
    write_npy(tmp_path, "train", VALUES, SEEN)
    for values, labels, message in (
        (VALUES[:, :3], TRUE, "test.npy: has 3 features, but "),
        (VALUES, TRUE + 1, "test.npy, row 2: label '3' is none of the training set"),
        (VALUES, TRUE.astype(str), "some labels are whole numbers and others texts"),
        (with_value(9, 0, np.inf), TRUE, "test.npy, row 9, column 0: inf is no finite number"),
    ):
        write_npy(tmp_path, "test", values, labels)
        assert message in refusal(tmp_path)


def test_files_that_are_missing_or_too_many_are_refused(tmp_path):
    assert (
        refusal(None) == "--data-root is missing: name the folder that holds train.npy, .npz, .safetensors or .parquet"
    )
    assert refusal(tmp_path / "no") == f"--data-root {tmp_path / 'no'}: no such folder"
    assert "holds no train.npy, train.npz, train.safetensors, train.parquet" in refusal(tmp_path)
    np.save(tmp_path / "train.npy", VALUES)
    assert "train.npy: has no labels: put them into it (label, labels, y, or --label-column), or" in refusal(tmp_path)
    np.save(tmp_path / "train_labels.npy", SEEN)
    (tmp_path / "train_labels.txt").write_text("0\n" * ROWS)
    assert "its labels are in two places: train_labels.npy and train_labels.txt" in refusal(tmp_path)
    write_npz(tmp_path, "train", VALUES, SEEN)
    assert "train.npy: train.npz is there too; keep one of them" in refusal(tmp_path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    whole = io.BytesIO()
    np.save(whole, VALUES)
    (tmp_path / "train.npy").write_bytes(whole.getvalue()[:-3])
    assert "train.npy: the file ends before its last number; was it written whole?" in refusal(tmp_path)
    (tmp_path / "train.npy").unlink()
    for name in ("train.npz", "train.safetensors", "train.parquet"):
        (tmp_path / name).write_bytes(b"no such thing")
        assert f"{name}: cannot be read" in refusal(tmp_path)
        (tmp_path / name).unlink()
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    assert "train.npz: cannot be read" in refusal(tmp_path)


def test_a_damaged_compressed_file_is_refused(tmp_path):
    write_compressed_npz(tmp_path, "train", np.random.RandomState(0).randn(400, COLUMNS), np.arange(400) % 3)
    damaged = bytearray((tmp_path / "train.npz").read_bytes())
    damaged[5000:5100] = bytes(100)
    (tmp_path / "train.npz").write_bytes(damaged)
    assert "train.npz, features: cannot be read (" in refusal(tmp_path)


def test_what_is_compressed_must_fit_into_memory(tmp_path, monkeypatch):
    write_compressed_npz(tmp_path, "train", VALUES, SEEN)
    monkeypatch.setattr(arrays, "total_memory", lambda: VALUES.nbytes)
    assert "is compressed, cannot be mapped and would take" in refusal(tmp_path)


def test_defaults_follow_from_the_number_of_rows(tmp_path):
    for write in (write_npy, write_columns):
        root = tmp_path / write.__name__
        root.mkdir()
        write(root, "train", np.tile(VALUES, (30, 1)), np.tile(SEEN, 30))
        config = configure(data="features", data_root=root)
        assert config.model == "mlp"
        assert config.epochs == fitting_defaults("features", 30 * ROWS)["epochs"]
    usual = configure(data="features").model
    for nothing in (VALUES[:0], np.float32(1), object_array()):
        np.save(tmp_path / "train.npy", nothing)
        assert configure(data="features", data_root=tmp_path).model == usual


def test_new_rows_are_predicted_as_those_of_the_test_set(tmp_path):
    times = 1_700_000_000 + 50 * VALUES.astype(np.float64) + 100 * TRUE[:, None]
    write_npy(tmp_path, "train", times, TRUE)
    write_npy(tmp_path, "test", times[:9], TRUE[:9])
    write_columns(tmp_path, "new", times[:9], TRUE[:9])
    run = train(configure(data="features", data_root=tmp_path, steps=50, out=tmp_path / "run"))
    found = predict(load_run(run.folder), [tmp_path / "new.parquet", tmp_path / "test.npy"])
    assert found.names[0] == f"{tmp_path / 'new.parquet'}:0" and found.names[17] == f"{tmp_path / 'test.npy'}:8"
    assert np.array_equal(found.probabilities[:9], found.probabilities[9:])
    accuracy = np.mean(found.probabilities[9:].argmax(1) == TRUE[:9])
    assert accuracy == run.summary["test_accuracy"] == evaluate(run.folder)["test_accuracy"]
    with pytest.raises(UserError, match=r"features are read from \.npy, \.npz, \.safetensors and \.parquet"):
        predict(load_run(run.folder), [tmp_path / "run" / "config.json"])


def test_new_rows_that_the_network_cannot_take_are_refused(tmp_path):
    write_npy(tmp_path, "train", VALUES, TRUE)
    run = train(configure(data="features", data_root=tmp_path, test_from="none", steps=2, out=tmp_path / "run"))
    for values, message in (
        (with_value(9, 2, np.nan), "new.npy, row 9, column 2: nan is no finite number"),
        (with_value(9, 2, np.inf), "new.npy, row 9, column 2: inf is no finite number"),
        (1e300 * VALUES.astype(np.float64), "is too large"),
        (VALUES[:, :3], "new.npy: has 3 features, but the run was trained on 4"),
    ):
        np.save(tmp_path / "new.npy", values)
        with pytest.raises(UserError, match=message):
            predict(load_run(run.folder), [tmp_path / "new.npy"])


def test_new_rows_keep_the_precision_of_the_stored_ones(tmp_path):
    np.save(tmp_path / "new.npy", VALUES)
    rows, names = read_new(FeaturesOptions(), tmp_path / "new.npy")
    assert rows.dtype == np.float32 and rows.shape == (ROWS, COLUMNS, 1, 1) and names[3] == f"{tmp_path / 'new.npy'}:3"
    np.save(tmp_path / "new.npy", VALUES.astype(np.int64))
    assert read_new(FeaturesOptions(), tmp_path / "new.npy")[0].dtype == np.float64


def test_a_class_that_is_not_in_the_test_set_is_trained_and_its_figures_are_left_out(tmp_path):
    write_npz(tmp_path, "train", VALUES, TRUE)
    tested = TRUE != 1
    write_npz(tmp_path, "test", VALUES[tested], TRUE[tested])
    config = configure(data="features", data_root=tmp_path, steps=30, out=tmp_path / "run")
    with pytest.warns(UserWarning, match="the test set has no example of class '1': its figures are of the other"):
        run = train(config)
    np.save(tmp_path / "new.npy", VALUES[tested])
    predicted = predict(load_run(run.folder), [tmp_path / "new.npy"]).probabilities.argmax(1)
    recall = [(predicted[TRUE[tested] == label] == label).mean() for label in (0, 2)]
    assert run.summary["test_balanced_accuracy"] == pytest.approx(np.mean(recall))
    with pytest.warns(UserWarning, match="no example of class '1'"):
        found = evaluate(run.folder)
    assert found["test_classes"]["recall"] == [pytest.approx(recall[0]), None, pytest.approx(recall[1])]
    assert found["test_macro_f1"] == pytest.approx(f1_score(TRUE[tested], predicted, average="macro"))
    assert "NaN" not in (run.folder / "summary.json").read_text() + (run.folder / "metrics.jsonl").read_text()


def test_what_has_changed_since_training_is_named_by_what_it_is(tmp_path):
    write_npz(tmp_path, "train", VALUES, TRUE)
    write_npz(tmp_path, "test", VALUES, TRUE)
    run = train(configure(data="features", data_root=tmp_path, steps=2, out=tmp_path / "run")).folder
    names = np.array(["b", "a", "c"])[TRUE]
    for values, labels, changed in (
        (VALUES[:, 1:], TRUE, "3 features, were 4 features"),
        (VALUES, np.where(TRUE == 2, 3, TRUE), "other classes: '2' is gone"),
        (VALUES, np.where(np.arange(ROWS) == 5, 3, TRUE), "other classes: '3' is new"),
        (VALUES, names, "other classes: '0' is gone"),
    ):
        for part in ("train", "test"):
            write_npz(tmp_path, part, values, labels)
        with pytest.raises(UserError) as caught:
            evaluate(run)
        assert str(caught.value) == (
            f"{run}: the training set of 'features' is not that of the run any more ({changed}); use reweight "
            "predict for new examples"
        )


class TestFeatures(DataSuite):
    name, meta_size = "features", 9

    @pytest.fixture
    def given(self, tmp_path):
        write_npy(tmp_path, "train", VALUES, SEEN, TRUE)
        return {"data_root": tmp_path, "test_from": "split:0.1"}


class TestFeaturesLongTail(TestFeatures):
    name = "features-lt"
