"""Small pictures of training examples."""

import io

import numpy as np
import pytest
from PIL import Image

from reweight_audit.html import thumbnails_of
from reweight_core import ImageFiles, Split, UserError


def split_of(images):
    return Split(images, np.zeros(len(images), np.int64))


def pictures_of(images, positions):
    return [Image.open(io.BytesIO(content)) for content in thumbnails_of(split_of(images))(positions)]


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_kept_as_they_are(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, channels, 28, 32), dtype=np.uint8)
    for position, picture in zip([3, 0], pictures_of(images, [3, 0]), strict=True):
        assert picture.format == "PNG"
        pixels = np.asarray(picture).reshape(28, 32, channels)
        np.testing.assert_array_equal(pixels, images[position].transpose(1, 2, 0))


@pytest.mark.parametrize(("channels", "mode"), [(2, "L"), (4, "RGB"), (13, "RGB")])
def test_of_other_channels_some_are_shown(channels, mode):
    images = np.random.default_rng(0).integers(0, 256, (1, channels, 16, 16), dtype=np.uint8)
    (picture,) = pictures_of(images, [0])
    assert picture.mode == mode
    shown = images[0, : len(picture.getbands())]
    np.testing.assert_array_equal(np.asarray(picture).reshape(16, 16, -1), shown.transpose(1, 2, 0))


def test_large_images_are_made_small_in_their_shape():
    # red on the left, blue on the right
    images = np.zeros((1, 3, 200, 400), np.uint8)
    images[0, 0, :, :200] = images[0, 2, :, 200:] = 255
    (picture,) = pictures_of(images, [0])
    assert (picture.format, picture.size) == ("JPEG", (96, 48))
    assert picture.getpixel((10, 24))[0] > 240 > 15 > picture.getpixel((10, 24))[2]
    assert picture.getpixel((85, 24))[2] > 240 > 15 > picture.getpixel((85, 24))[0]


def test_dark_data_are_shown_bright():
    images = np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1).repeat(8, 2).repeat(8, 3)
    shown = [int(np.asarray(picture)[0, 0]) for picture in pictures_of(images, range(17))]
    np.testing.assert_allclose(shown, np.linspace(0, 255, 17), atol=0.5)
    (black,) = pictures_of(np.zeros((1, 3, 8, 8), np.uint8), [0])
    assert black.getextrema() == ((0, 0),) * 3


def test_files_are_shown_whole(tmp_path):
    Image.new("RGB", (300, 100), (0, 200, 0)).save(tmp_path / "wide.png")
    Image.new("L", (20, 40), 7).save(tmp_path / "grey.png")
    files = ImageFiles(tmp_path, np.array(["wide.png", "grey.png"], dtype=object), 64)
    grey, wide = pictures_of(files, [1, 0])
    assert wide.size == (96, 32)
    assert grey.size == (20, 40)
    assert grey.getpixel((3, 3)) == (7, 7, 7)


def test_a_file_that_is_gone_is_named(tmp_path):
    files = ImageFiles(tmp_path, np.array(["lost.png"], dtype=object), 64)
    with pytest.raises(UserError, match=r"lost\.png"):
        thumbnails_of(split_of(files))([0])


def test_features_have_none():
    assert thumbnails_of(split_of(np.zeros((4, 7, 1, 1), np.float32))) is None
