import hashlib
import pickle
import tarfile
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from reweight_core import UserError
from reweight_data_noisy.options import FilesOptions
from reweight_data_noisy.readers.cifar import READERS, load


def refuse_network(monkeypatch):
    def fail(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", fail)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_gives_what_torchvision_reads(name, tmp_path, write_cifar):
    reader = READERS[name]
    write_cifar(tmp_path, reader)
    dataset = load(name, FilesOptions(data_root=tmp_path))
    for split, is_train in ((dataset.train, True), (dataset.test, False)):
        source = reader(tmp_path, train=is_train)
        assert len(split) == len(source)
        for image, label, (expected, target) in zip(split.images, split.labels, source, strict=True):
            assert (image.transpose(1, 2, 0) == np.asarray(expected)).all()
            assert label == target
    assert dataset.classes == tuple(source.classes)
    assert dataset.train.images.flags.c_contiguous


def test_is_normalised_and_augmented_as_in_the_papers(tmp_path, write_cifar):
    write_cifar(tmp_path, CIFAR10)
    dataset = load("cifar10", FilesOptions(data_root=tmp_path))
    assert (dataset.mean, dataset.std) == ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
    assert (dataset.augment, dataset.padding) == ("crop-flip", 4)
    assert dataset.trusted


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_missing_file_is_named_with_where_and_how_to_get_it(name, tmp_path, write_cifar):
    write_cifar(tmp_path, CIFAR10)
    (tmp_path / CIFAR10.base_folder / name).unlink()
    with pytest.raises(UserError) as refused:
        load("cifar10", FilesOptions(data_root=tmp_path))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / CIFAR10.base_folder / name} is missing; give --download, or extract")
    assert CIFAR10.url in message
    assert "\n" not in message


def test_missing_default_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is missing; give --download") as refused:
        load("cifar100", FilesOptions())
    assert str(tmp_path / "data" / "cifar-100-python" / "train") in str(refused.value)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_wrong_checksum_is_refused_before_anything_is_unpickled(name, tmp_path, write_cifar, monkeypatch):
    write_cifar(tmp_path, CIFAR10)
    (tmp_path / CIFAR10.base_folder / name).write_bytes(b"not the official file")

    def fail(*args, **kwargs):
        raise AssertionError("a file was unpickled")

    monkeypatch.setattr(pickle, "load", fail)
    with pytest.raises(UserError) as refused:
        load("cifar10", FilesOptions(data_root=tmp_path))
    assert str(refused.value).startswith(f"{tmp_path / CIFAR10.base_folder / name} is corrupt")


def test_download_touches_nothing_when_all_files_are_right(tmp_path, write_cifar, monkeypatch):
    write_cifar(tmp_path, CIFAR10)
    refuse_network(monkeypatch)
    assert len(load("cifar10", FilesOptions(data_root=tmp_path, download=True)).train) == 50


def test_download_unpacks_an_archive_that_is_there(tmp_path, write_cifar, monkeypatch):
    write_cifar(tmp_path / "made", CIFAR10)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / CIFAR10.filename, "w:gz") as archive:
        archive.add(tmp_path / "made" / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((root / CIFAR10.filename).read_bytes()).hexdigest())
    refuse_network(monkeypatch)
    assert len(load("cifar10", FilesOptions(data_root=root, download=True)).train) == 50


def test_failing_download_is_one_line(tmp_path, monkeypatch):
    refuse_network(monkeypatch)
    with pytest.raises(UserError) as refused:
        load("cifar10", FilesOptions(data_root=tmp_path, download=True))
    message = str(refused.value)
    assert message.startswith(f"--download: cannot fetch {CIFAR10.url} into {tmp_path} (<urlopen error no route>)")
    assert "\n" not in message
