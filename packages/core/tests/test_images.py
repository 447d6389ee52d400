import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from reweight_core.data.images import CROP_AREA, CROP_RATIO, ImageFiles, decode, random_crop

SIZE, COUNT = 6, 7


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    rng = np.random.RandomState(0)
    for i in range(COUNT):
        Image.fromarray(rng.randint(256, size=(9 + i, 14 - i, 3)).astype(np.uint8)).save(root / f"{i}.png")
    return ImageFiles(root, np.array([f"{i}.png" for i in range(COUNT)], dtype=object), SIZE)


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
@settings(max_examples=200)
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
