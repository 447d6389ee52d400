import math

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder
from reweight_core.data.images import CROP_AREA, CROP_RATIO, ImageFiles, decode, random_crop
from reweight_core.data.reader import Request, stream
from reweight_core.errors import UserError

SIZE, COUNT = 6, 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    rng = np.random.RandomState(0)
    for i in range(COUNT):
        Image.fromarray(rng.randint(256, size=(9 + i, 14 - i, 3)).astype(np.uint8)).save(root / f"{i}.png")
    return ImageFiles(root, np.array([f"{i}.png" for i in range(COUNT)], dtype=object), SIZE)


def dataset_of(images, augment="resized-crop"):
    split = Split(images, np.arange(COUNT) % 2)
    return Dataset(split, split, ("a", "b"), (100.0,) * 3, (50.0,) * 3, meta=split, augment=augment, padding=1)


def examples_of(images, augment="resized-crop"):
    dataset = dataset_of(images, augment)
    return Examples(dataset.train, dataset, CPU, torch.float64)


def test_files_stand_where_an_array_of_the_same_images_could(files):
    array = np.stack([decode(files.root / name, (SIZE, SIZE))[0].transpose(2, 0, 1) for name in files.names])
    assert files.shape == array.shape and files.dtype == array.dtype and len(files) == COUNT
    order = np.array([4, 0, 4, 6])
    assert (files.read(order) == array[order]).all()
    assert (files[order].read(np.arange(4)) == array[order]).all()


def test_a_random_crop_follows_from_seed_and_position_alone(files):
    first = files.read(np.arange(COUNT), (3, 1))
    assert (files.read(np.array([5, 2]), (3, 1)) == first[[5, 2]]).all()
    assert (files.read(np.arange(COUNT), (3, 2)) != first).any(axis=(1, 2, 3)).all()
    assert not np.array_equal(files.read(np.arange(COUNT)), first)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 999))
@settings(max_examples=200, deadline=None)
def test_a_random_crop_lies_in_the_image_and_has_an_allowed_shape(width, height, seed):
    left, top, right, bottom = random_crop(width, height, np.random.RandomState(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    # sides are rounded to pixels
    assert (w + 0.5) / max(h - 0.5, 0.5) >= CROP_RATIO[0] or w == width
    assert (h + 0.5) / max(w - 0.5, 0.5) >= 1 / CROP_RATIO[1] or h == height
    if (w, h) != (width, height):
        assert (w + 0.5) * (h + 0.5) >= CROP_AREA[0] * width * height or (w == width or h == height)


@pytest.mark.parametrize("size", [(900, 3), (2, 700)])
def test_where_no_crop_fits_it_is_torchvisions_central_one(size):
    width, height = size
    top, left, h, w = RandomResizedCrop.get_params(torch.empty(3, height, width), list((0.9, 1.0)), [3 / 4, 4 / 3])
    assert random_crop(width, height, np.random.RandomState(0)) == (left, top, left + w, top + h)


def test_crops_have_torchvisions_distribution():
    width, height, draws = 120, 80, 3000
    rng = np.random.RandomState(0)
    ours = np.array([random_crop(width, height, rng) for _ in range(draws)], dtype=float)
    torch.manual_seed(0)
    picture = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)])
    top, left, h, w = theirs.T
    theirs = np.stack([left, top, left + w, top + h], 1)
    error = np.sqrt((ours.var(0) + theirs.var(0)) / draws)
    assert (abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    assert (abs(ours.std(0) / theirs.std(0) - 1) < 0.1).all()


def test_half_of_the_random_images_are_flipped(tmp_path):
    ramp = np.arange(64, dtype=np.uint8).repeat(64).reshape(64, 64).T.copy()
    Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / "ramp.png")
    files = ImageFiles(tmp_path, np.array(["ramp.png"] * 400, dtype=object), 8)
    pixels = files.read(np.arange(400), (0,)).astype(int)
    flipped = (pixels[:, 0, 0, 0] > pixels[:, 0, 0, -1]).mean()
    assert math.isclose(flipped, 0.5, abs_tol=0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_from_any_number_of_workers(files, workers):
    parts = [np.array([6, 1]), np.array([0]), np.array([3, 3, 2])]
    state = torch.random.get_rng_state()
    found = list(stream([Request(files, ids, (9,)) for ids in parts], workers, CPU))
    assert all((pixels.numpy() == files.read(ids, (9,))).all() for pixels, ids in zip(found, parts, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_in_one_line(tmp_path, workers):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    files = ImageFiles(tmp_path, np.array(["broken.jpg"], dtype=object), SIZE)
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be read as an image") as refused:
        list(stream([Request(files, np.array([0]), None)], workers, CPU))
    assert "\n" not in str(refused.value)


def test_examples_in_files_are_those_of_the_array(files):
    array = files.read(np.arange(COUNT))
    ids = torch.tensor([5, 0, 5])
    in_files, resident = (examples_of(images, "crop-flip") for images in (files, array))
    for generator in (None, 4):
        one, other = (
            e.batch(ids, generator and torch.Generator().manual_seed(generator)) for e in (in_files, resident)
        )
        assert one.inputs.shape == (3, 3, SIZE, SIZE) and torch.equal(one.labels, other.labels)
    assert torch.equal(in_files.batch(ids, None).inputs, resident.batch(ids, None).inputs)
    pixels = torch.from_numpy(files.read(ids.numpy()))
    fed = in_files.batch(ids, torch.Generator().manual_seed(4), pixels)
    assert torch.equal(fed.inputs, resident.batch(ids, torch.Generator().manual_seed(4)).inputs)


def test_going_through_examples_in_order_gives_them_once_and_unaugmented(files):
    array = files.read(np.arange(COUNT))
    for examples, workers in ((examples_of(files), 0), (examples_of(files), 2), (examples_of(array, "flip"), 0)):
        batches = list(examples.in_order(3, workers))
        assert [len(batch.labels) for batch in batches] == [3, 3, 1]
        inputs = torch.cat([batch.inputs for batch in batches])
        assert torch.equal(inputs, (torch.from_numpy(array) - 100.0).double() / 50)


def test_a_feeder_reads_what_each_step_takes(files):
    train, meta = examples_of(files), examples_of(files)
    (first, second), again = (
        list(Feeder(train, meta, 4, seed=5, workers=workers).epoch(2, "train", [4, 3])) for workers in (0, 1)
    )
    assert sorted([*first.ids.tolist(), *second.ids.tolist()]) == list(range(COUNT))
    for fed, same in zip((first, second), again, strict=True):
        assert torch.equal(fed.pixels, same.pixels) and torch.equal(fed.meta_pixels, same.meta_pixels)
        assert fed.meta_pixels.shape == (4, 3, SIZE, SIZE)
    # a training image and the same image in the meta set have crops of their own
    common = sorted(set(first.ids.tolist()) & set(first.meta_ids.tolist()))
    assert common
    i, j = first.ids.tolist().index(common[0]), first.meta_ids.tolist().index(common[0])
    assert not torch.equal(first.pixels[i], first.meta_pixels[j])
    on_meta = next(Feeder(train, meta, 4, seed=5, workers=0).epoch(2, "meta", [4]))
    assert on_meta.pixels is not None and not torch.equal(on_meta.ids, first.ids)


def test_an_array_cannot_have_crops_of_random_area(files):
    with pytest.raises(UserError, match="--augment resized-crop"):
        examples_of(files.read(np.arange(COUNT)))


def test_splits_are_all_files_or_all_arrays(files):
    with pytest.raises(TypeError, match="image files"):
        attrs.evolve(dataset_of(files), train=Split(files.read(np.arange(COUNT)), np.arange(COUNT) % 2))
