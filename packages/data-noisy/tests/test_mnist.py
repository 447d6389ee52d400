"""The MNIST family on tiny files that are written here in the official format (idx)."""

import struct

import numpy as np
import pytest
from torchvision.datasets import MNIST, FashionMNIST

from reweight_core import Split, UserError, configure
from reweight_core.config.load_data import load_data as prepared
from reweight_core.testing import DataSuite
from reweight_data_noisy.options import FilesOptions, FourVersusNineOptions
from reweight_data_noisy.readers import mnist
from reweight_data_noisy.readers.mnist import READERS, load, load_four_versus_nine


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_official_files(root, reader=MNIST, train=300, test=100, digits=10):
    rng = np.random.RandomState(3)
    folder = root / reader.__name__ / "raw"
    folder.mkdir(parents=True)
    written = {}
    for part, size in (("train", train), ("t10k", test)):
        images, labels = rng.randint(256, size=(size, 28, 28)), rng.permutation(np.arange(size) % digits)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
        written[part] = images, labels
    return written


@pytest.mark.parametrize(
    # mean and deviation of all training pixels, in [0, 1], as they are known of these datasets
    ("name", "mean", "std", "second"),
    [("mnist", 0.1307, 0.3081, "1"), ("fashion-mnist", 0.2860, 0.3530, "Trouser")],
)
def test_images_and_labels_are_those_of_the_files(name, mean, std, second, tmp_path):
    written = write_official_files(tmp_path, READERS[name])
    dataset = load(name, FilesOptions(data_root=tmp_path))
    assert (dataset.mean, dataset.std) == (
        pytest.approx((255 * mean,), abs=0.05),
        pytest.approx((255 * std,), abs=0.05),
    )
    for split, part in ((dataset.train, "train"), (dataset.test, "t10k")):
        images, labels = written[part]
        assert (split.images == images[:, None]).all()
        assert (split.labels == labels).all()
    assert dataset.input_shape == (1, 28, 28)
    assert len(dataset.classes) == 10
    assert dataset.classes[1] == second


@pytest.mark.parametrize(("majority", "fours"), [(0.9, 499), (0.95, 250), (0.98, 100), (0.99, 50), (0.995, 25)])
def test_the_imbalanced_task_has_the_counts_of_the_official_code(majority, fours, monkeypatch, tmp_path):
    # 60,000 labels without their images would do, but the reader wants both
    labels = np.random.RandomState(0).permutation(np.repeat([4, 9], 9000))
    images = np.zeros((18_000, 1, 28, 28), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(18_000) % 256, np.arange(18_000) // 256
    split = Split(images, labels)
    monkeypatch.setattr(mnist, "_read", lambda *_: (split, split))
    dataset = load_four_versus_nine(FourVersusNineOptions(majority=majority))
    nines = int(5000 * majority)
    assert np.bincount(dataset.train.labels).tolist() == [fours - 5, nines - 5]
    assert np.bincount(dataset.meta.labels).tolist() == [5, 5]
    positions = [
        set((part.images[:, 0, 0, 0] + 256 * part.images[:, 0, 0, 1].astype(int)).tolist())
        for part in (dataset.train, dataset.meta)
    ]
    assert not positions[0] & positions[1]
    # the first 5,000 images of the file are left out
    assert min(positions[0] | positions[1]) >= 5000
    for part, of_part in zip((dataset.train, dataset.meta), positions, strict=True):
        assert len(of_part) == len(part)
    assert (dataset.mean, dataset.std, dataset.classes) == ((0.0,), (255.0,), ("4", "9"))


def test_the_small_test_set_is_the_first_250_of_each_class(monkeypatch):
    labels = np.tile([4, 9, 1], 7000)
    images = np.zeros((21_000, 1, 28, 28), np.uint8)
    images[:, 0, 0, 0] = (np.arange(21_000) < 750) * 200
    split = Split(images, labels)
    monkeypatch.setattr(mnist, "_read", lambda *_: (split, split))
    options = {"majority": 0.9, "test": "500"}
    small = load_four_versus_nine(FourVersusNineOptions(**options))
    assert np.bincount(small.test.labels).tolist() == [250, 250]
    assert (small.test.images[:, 0, 0, 0] == 200).all()
    full = load_four_versus_nine(FourVersusNineOptions(majority=0.9))
    assert np.bincount(full.test.labels).tolist() == [7000, 7000]


def test_another_draw_of_images_has_another_fingerprint(tmp_path):
    written = write_official_files(tmp_path, train=10_400, digits=2)
    for part, (_, labels) in written.items():
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", 4 + 5 * labels)
    options = {"data": "mnist-4v9", "data_root": tmp_path, "majority": 0.5}
    prints = {prepared(configure(**options, subset_seed=seed)).fingerprint for seed in (0, 0, 1)}
    assert len(prints) == 2


def test_too_few_images_are_an_error(tmp_path):
    write_official_files(tmp_path, train=5200)
    with pytest.raises(UserError, match=r"--majority 0\.995: takes 25 images of digit 4"):
        load_four_versus_nine(FourVersusNineOptions(data_root=tmp_path))
    with pytest.raises(UserError, match=r"--majority 0\.9999: takes 0 images of digit 4; there must be more than 5"):
        load_four_versus_nine(FourVersusNineOptions(data_root=tmp_path, majority=0.9999))


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"MNIST/raw: files are missing; give --download, or put train-images-idx3"):
        load("mnist", FilesOptions(data_root=tmp_path))


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", b"no idx file at all"])
def test_a_corrupt_file_is_an_error(content, tmp_path):
    write_official_files(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match="MNIST/raw"):
        load("mnist", FilesOptions(data_root=tmp_path))


def test_images_without_their_labels_are_an_error(tmp_path):
    write_official_files(tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.arange(7))
    with pytest.raises(UserError, match="do not fit together"):
        load("mnist", FilesOptions(data_root=tmp_path))


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(UserError, match="--download: cannot fetch MNIST"):
        load("mnist", FilesOptions(data_root=tmp_path, download=True))


def test_the_long_tail_of_a_family_member_counts_by_the_formula(tmp_path):
    write_official_files(tmp_path, train=1000)
    data = prepared(configure(data="mnist-lt", data_root=tmp_path, meta_size=0, imb=0.1))
    assert np.bincount(data.train.labels).tolist() == [int(100 * 0.1 ** (i / 9)) for i in range(10)]


class Files:
    """Gives the options of files that are written for the class."""

    @pytest.fixture
    def given(self, tmp_path):
        write_official_files(tmp_path, self.reader)
        return {"data_root": tmp_path}


class TestMNIST(Files, DataSuite):
    name, reader = "mnist", MNIST


class TestFashionMNIST(Files, DataSuite):
    name, reader = "fashion-mnist", FashionMNIST


class TestFourVersusNine(DataSuite):
    name, meta_size = "mnist-4v9", 10

    @pytest.fixture
    def given(self, tmp_path):
        written = write_official_files(tmp_path, train=10_400, digits=2)
        for part, (_, labels) in written.items():
            write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", 4 + 5 * labels)
        return {"data_root": tmp_path, "majority": 0.5}
