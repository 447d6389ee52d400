import numpy as np
import pytest
from PIL import Image

from reweight_core import UserError, configure
from reweight_core.config.load_data import load_data as prepared
from reweight_core.testing import DataSuite
from reweight_data_noisy.options import CsvOptions
from reweight_data_noisy.readers.csv import load


def write(root, part, lines):
    root.mkdir(exist_ok=True)
    (root / f"{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_images(root, count):
    rng = np.random.RandomState(0)
    (root / "images").mkdir(parents=True)
    arrays = []
    for number in range(count):
        arrays.append(rng.randint(256, size=(6, 5, 3)).astype(np.uint8))
        Image.fromarray(arrays[-1]).save(root / "images" / f"{number}.png")
    return np.stack(arrays).transpose(0, 3, 1, 2)


def read(root, **options):
    return load(CsvOptions(data_root=root, **options))


def refusal(root):
    with pytest.raises(UserError) as refused:
        read(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_images_come_in_the_order_of_the_rows_with_their_labels(tmp_path):
    pixels = write_images(tmp_path, 6)
    write(tmp_path, "train", ["file,label", *(f"images/{i}.png,{name}" for i, name in ((4, "b"), (0, "a"), (2, "b")))])
    write(tmp_path, "test", ["label,file", "a,images/1.png", "b,images/5.png"])
    write(tmp_path, "meta", ["file,label", "images/3.png,b", "images/1.png,a"])
    dataset = read(tmp_path)
    assert dataset.classes == ("a", "b")
    assert (dataset.train.images == pixels[[4, 0, 2]]).all()
    assert dataset.train.labels.tolist() == [1, 0, 1]
    assert dataset.train.names == ("images/4.png", "images/0.png", "images/2.png")
    assert (dataset.test.images == pixels[[1, 5]]).all() and dataset.test.labels.tolist() == [0, 1]
    assert (dataset.meta.images == pixels[[3, 1]]).all() and dataset.meta.labels.tolist() == [1, 0]
    assert not dataset.trusted and dataset.augment == "crop-flip"
    assert dataset.features is None


def test_numbers_are_ordered_as_numbers_and_ids_are_names(tmp_path):
    write(tmp_path, "train", ["id,label,x", "u,10,1", "v,9,2", "w,2,3"])
    dataset = read(tmp_path)
    assert dataset.classes == ("2", "9", "10")
    assert dataset.train.names == ("u", "v", "w")


def test_features_are_standardised_channels_of_one_pixel(tmp_path):
    write(tmp_path, "train", ["label,x,y,constant", "a,1,-2,5", "b,3,4,5", "a,5,0.5,5"])
    dataset = read(tmp_path)
    assert dataset.input_shape == (3, 1, 1)
    values = np.array([[1, -2, 5], [3, 4, 5], [5, 0.5, 5]])
    expected = (values - values.mean(0)) / [*values.std(0)[:2], 1.0]
    assert np.allclose(dataset.train.images[:, :, 0, 0], expected, atol=1e-6)
    assert (dataset.mean, dataset.std) == ((0.0,) * 3, (1.0,) * 3)
    assert dataset.augment == "none"
    assert dataset.train.names == ("train.csv:2", "train.csv:3", "train.csv:4")
    assert dataset.features.names == ("x", "y", "constant")
    assert dataset.features.mean == tuple(values.mean(0))
    assert dataset.features.std == (*values.std(0)[:2], 1.0)


def test_training_sees_the_labels_and_true_ones_are_for_judging_and_clean_sets(tmp_path):
    rng = np.random.RandomState(1)
    true = rng.randint(2, size=200)
    seen = np.where(rng.rand(200) < 0.3, 1 - true, true)
    rows = [f"{'ab'[s]},{'ab'[t]},{i},{i}" for i, (s, t) in enumerate(zip(seen, true, strict=True))]
    write(tmp_path, "train", ["label,true_label,x,id", *rows])
    write(tmp_path, "test", ["label,true_label,x,id", "a,b,1,500", "b,a,2,501"])
    data = prepared(configure(data="csv", data_root=tmp_path, meta_size=20))
    assert data.test.labels.tolist() == [1, 0]
    positions = np.array(list(map(int, data.train.names)))
    assert (data.train.labels == seen[positions]).all()
    assert (data.true_labels == true[positions]).all()
    assert data.noise_rate == pytest.approx((seen != true)[positions].mean())
    assert (data.meta.labels == true[list(map(int, data.meta.names))]).all()
    # noise on top of the noise there is
    noisier = prepared(configure(data="csv", data_root=tmp_path, meta_size=20, test_from="none", noise="uniform:0.5"))
    assert noisier.noise_rate > data.noise_rate


def test_without_true_labels_the_noise_is_unknown(tmp_path):
    write(tmp_path, "train", ["label,x", *(f"{'ab'[i % 2]},{i}" for i in range(20))])
    assert prepared(configure(data="csv", data_root=tmp_path, test_from="none")).noise_rate is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,name", "images/0.png,a"], "it has file, name"),
        (["file,Label", "images/0.png,a"], "train.csv: has no column 'label': rename 'Label'"),
        (["label;x", "a;1"], "its columns are separated by semicolons, and must be by commas"),
        (["label\tx", "a\t1"], "its columns are separated by tabs, and must be by commas"),
        (["file,label"], "train.csv: has no rows"),
        (["file,label", "images/0.png,a,b"], "train.csv, line 2: does not have 2 columns"),
        (["file,label", "images/0.png"], "train.csv, line 2: does not have 2 columns"),
        (["file,label", "images/0.png,a", "images/1.png,"], "train.csv, line 3: label is empty"),
        (["file,label", "images/0.png,a", "images/9.png,b"], "line 3: there is no file "),
        (["file,label", "images/0.png,a", "images/0.png,b"], "line 3: file 'images/0.png' is in line 2 too"),
        (["file,label,id", "images/0.png,a,7", "images/1.png,b,7"], "line 3: id '7' is in line 2 too"),
        (["file,label", "../outside.png,a"], "line 2: file '../outside.png' must be a path inside"),
        (["file,label", "/etc/passwd,a"], "line 2: file '/etc/passwd' must be a path inside"),
        (["file,label", "link.png,a"], "line 2: file 'link.png' leads out of"),
        (["file,label", "broken.png,a", "images/1.png,b"], "broken.png: cannot be read as an image"),
        (["file,label", "images/0.png,a", "images/1.png,a"], "the data have 1 class"),
        (["label,x,x", "a,1,2"], "two columns have one name"),
        (["label,x", "1,1", "01,2"], "the labels '01' and '1' are the same number"),
        (["file,label", "", "images/0.png,a", "", "images/9.png,b"], "line 5: there is no file "),
        (["file,label", "images/0.png,a", "./images//0.png,b"], "line 3: file 'images/0.png' is in line 2 too"),
        (["file,label,id", "images/0.png,a,1", "images/0.png,b,2"], "line 3: file 'images/0.png' is in line 2 too"),
        (["file,label", "images/0.png,a", f"{'x' * 300},b"], "cannot be found (File name too long)"),
        (["label", "a", "b"], "has neither a column 'file' nor columns of features"),
        (["label,x", "a,1", "b,two"], "line 3: x 'two' is no finite number"),
        (["label,x", "a,1", "b,nan"], "line 3: x 'nan' is no finite number"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(lines, message, tmp_path):
    root = tmp_path / "root"
    write_images(root, 2)
    (root / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (5, 6)).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    write(root, "train", lines)
    assert message in refusal(root)


@pytest.mark.parametrize(
    ("part", "lines", "message"),
    [
        ("test", ["label,x,id", "c,1,9"], "test.csv, line 2: label 'c' is no label of train.csv"),
        ("test", ["label,id", "a,9"], "test.csv: has no column 'x', which is a feature of the training set"),
        ("meta", ["label,x,id", "a,1,8", "a,1,2"], "meta.csv, line 3: id '2' is in train.csv too"),
        ("test", ["label,x,id", "a,1,2"], "test.csv, line 2: id '2' is in train.csv too"),
    ],
)
def test_splits_that_do_not_fit_are_refused(part, lines, message, tmp_path):
    write(tmp_path, "train", ["label,x,id", "a,1,1", "b,2,2"])
    write(tmp_path, part, lines)
    assert message in refusal(tmp_path)


def test_blanks_around_names_and_values_do_not_count(tmp_path):
    write(tmp_path, "train", ["\ufefflabel , x", "cat ,1", " cat, 2", "dog,3"])
    dataset = read(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 1]


def test_large_numbers_keep_their_small_differences(tmp_path):
    write(tmp_path, "train", ["label,time", *(f"{'ab'[i % 2]},{1_700_000_000 + i}" for i in range(100))])
    assert len(np.unique(read(tmp_path).train.images)) == 100


def test_the_meta_set_may_not_hold_training_images_under_other_ids(tmp_path):
    write_images(tmp_path, 3)
    write(tmp_path, "train", ["file,label,id", "images/0.png,a,1", "images/1.png,b,2"])
    write(tmp_path, "meta", ["file,label,id", "images/2.png,a,7", "./images/1.png,b,8"])
    assert "meta.csv, line 3: file 'images/1.png' is in train.csv too" in refusal(tmp_path)


def test_a_missing_root_or_file_is_refused(tmp_path):
    assert "train.csv: cannot be read as CSV" in refusal(tmp_path)
    assert refusal(tmp_path / "nothing") == f"--data-root {tmp_path}/nothing: no such folder (it must hold train.csv)"
    assert refusal(None) == "--data-root is missing: name the folder that holds train.csv"


class TestCsv(DataSuite):
    name, meta_size = "csv", 10

    @pytest.fixture
    def given(self, tmp_path):
        write_images(tmp_path, 60)
        write(tmp_path, "train", ["file,label", *(f"images/{i}.png,{'ab'[i % 2]}" for i in range(60))])
        return {"data_root": tmp_path, "test_from": "split:0.1"}


class TestCsvOfFeatures(DataSuite):
    name, meta_size = "csv", 10

    @pytest.fixture
    def given(self, tmp_path):
        write(tmp_path, "train", ["label,x,y", *(f"{'ab'[i % 2]},{i},{i * i}" for i in range(60))])
        return {"data_root": tmp_path, "test_from": "split:0.1"}
