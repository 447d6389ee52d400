"""The array of decoded images: the same from files, from many workers and from the cache, which is never stale."""

import os

import numpy as np
import pytest
from PIL import Image

from reweight_core import ImageFiles, UserError
from reweight_data_noisy.options import ImageOptions
from reweight_data_noisy.readers import image_files
from reweight_data_noisy.readers.image_files import open_images, read_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.RandomState(0)
    for number in range(7):
        Image.fromarray(rng.randint(256, size=(5, 4, 3)).astype(np.uint8)).save(root / f"{number}.png")
        os.utime(root / f"{number}.png", ns=(1, 1))
    return root


def names(root):
    return sorted(path.name for path in root.iterdir())


def expected(root):
    return np.stack([np.asarray(Image.open(root / name).convert("RGB")) for name in names(root)]).transpose(0, 3, 1, 2)


def refuse_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(image_files, "decode", fail)


def test_the_second_call_decodes_nothing_and_gives_the_same(folder, monkeypatch):
    first = read_images(folder, names(folder), None, cached=True)
    refuse_decoding(monkeypatch)
    second = read_images(folder, names(folder), None, cached=True)
    assert (first == expected(folder)).all()
    assert (second == first).all() and second.dtype == np.uint8


def add(root):
    Image.fromarray(np.full((5, 4, 3), 9, np.uint8)).save(root / "8.png")


def remove(root):
    (root / "3.png").unlink()


def change(root):
    Image.fromarray(np.full((5, 4, 3), 9, np.uint8)).save(root / "3.png")


def swap(root):
    for name in ("3.png", "4.png"):
        os.utime(root / name, ns=(1, 1))
    (root / "3.png").rename(root / "other")
    (root / "4.png").rename(root / "3.png")
    (root / "other").rename(root / "4.png")


@pytest.mark.parametrize("happen", [add, remove, change, swap])
def test_a_folder_that_changed_is_read_again(happen, folder):
    read_images(folder, names(folder), None, cached=True)
    happen(folder)
    assert (read_images(folder, names(folder), None, cached=True) == expected(folder)).all()


def test_a_file_that_was_rewritten_in_the_same_size_is_read_again(folder):
    for name in names(folder):
        Image.open(folder / name).save(folder / name.replace("png", "bmp"))
        (folder / name).unlink()
    read_images(folder, names(folder), None, cached=True)
    size = (folder / "3.bmp").stat().st_size
    Image.fromarray(np.full((5, 4, 3), 9, np.uint8)).save(folder / "3.bmp")
    assert (folder / "3.bmp").stat().st_size == size
    assert (read_images(folder, names(folder), None, cached=True) == expected(folder)).all()


def test_each_image_size_has_an_array_of_its_own(folder, monkeypatch):
    read_images(folder, names(folder), 3, cached=True)
    read_images(folder, names(folder), 2, cached=True)
    refuse_decoding(monkeypatch)
    assert read_images(folder, names(folder), 3, cached=True).shape == (7, 3, 3, 3)
    assert read_images(folder, names(folder), 2, cached=True).shape == (7, 3, 2, 2)


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_damaged_cache_is_made_again(damage, folder, tmp_path):
    read_images(folder, names(folder), None, cached=True)
    (kept,) = (tmp_path / "cache" / "reweight").iterdir()
    kept.write_bytes(kept.read_bytes()[:-10] if damage is None else damage)
    assert (read_images(folder, names(folder), None, cached=True) == expected(folder)).all()


def test_a_full_disk_is_a_warning_and_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    def fill_up(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_files, "save_file", fill_up)
    with pytest.warns(UserWarning, match="cannot be kept in .*No space left"):
        images = read_images(folder, names(folder), None, cached=True)
    assert (images == expected(folder)).all()
    assert list((tmp_path / "cache" / "reweight").iterdir()) == []


def test_a_cache_folder_that_cannot_be_used_is_a_warning(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert (read_images(folder, names(folder), None, cached=True) == expected(folder)).all()


def test_chunks_are_bounded_in_bytes(folder, monkeypatch):
    monkeypatch.setattr(image_files, "CHUNK_BYTES", 1)
    assert (read_images(folder, names(folder), None, cached=False) == expected(folder)).all()


def test_without_a_cache_nothing_is_written(folder, tmp_path):
    read_images(folder, names(folder), None, cached=False)
    assert not (tmp_path / "cache").exists()


def test_processes_give_what_threads_give_and_name_a_broken_image(folder, monkeypatch):
    monkeypatch.setattr(image_files, "MANY", 1)
    monkeypatch.setattr(image_files, "CHUNK", 2)
    assert (read_images(folder, names(folder), None, cached=False) == expected(folder)).all()
    (folder / "5.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"5\.png: cannot be read as an image"):
        read_images(folder, names(folder), None, cached=False)


def test_grey_images_have_one_channel_only_if_all_are_grey(folder):
    for name in names(folder):
        Image.open(folder / name).convert("L").save(folder / name)
    assert read_images(folder, names(folder), None, cached=True).shape == (7, 1, 5, 4)
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(folder / "8.png")
    assert read_images(folder, names(folder), None, cached=True).shape == (8, 3, 5, 4)


def test_images_that_would_fill_memory_are_read_while_training(folder, monkeypatch):
    # seven images of 4 x 4 pixels in three channels take 336 bytes
    for memory, in_files in ((672, False), (671, True)):
        monkeypatch.setattr(image_files, "total_memory", lambda memory=memory: memory)
        options = ImageOptions(image_size=4)
        if not in_files:
            assert isinstance(open_images(folder, names(folder), options), np.ndarray)
            continue
        with pytest.warns(UserWarning, match="read while training instead"):
            images = open_images(folder, names(folder), options)
        assert isinstance(images, ImageFiles)
        assert (images.read(np.arange(7)) == read_images(folder, names(folder), 4, cached=False)).all()
        assert isinstance(open_images(folder, names(folder), ImageOptions(image_size=4, stream="off")), np.ndarray)


def test_an_image_that_is_larger_than_memory_is_not_made(folder):
    with pytest.raises(UserError, match="--image-size 10000000: one image would take more than half of the memory"):
        open_images(folder, names(folder), ImageOptions(image_size=10_000_000))


def test_images_that_are_read_while_training_need_a_size(folder):
    with pytest.raises(UserError, match="give --image-size N"):
        open_images(folder, names(folder), ImageOptions(stream="on"))
