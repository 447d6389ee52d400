import os

import numpy as np
import pytest
from PIL import Image

from reweight_core import UserError
from reweight_data_noisy.options import FolderOptions
from reweight_data_noisy.readers.folder import load
from reweight_data_noisy.readers.image_files import CHUNK

RNG = np.random.RandomState(0)


def random_image(height=6, width=6, mode="RGB"):
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(RNG.randint(256, size=shape).astype(np.uint8))


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return np.asarray(image)


def make_folder(root, parts=("train", "test"), classes=("cat", "dog"), **image):
    for part in parts:
        for name in classes:
            save(random_image(**image), root / part / name / "a.png")
            save(random_image(**image), root / part / name / "b.png")
    return root


def read(root, **options):
    return load(FolderOptions(data_root=root, **options))


def refusal(root, **options):
    with pytest.raises(UserError) as refused:
        read(root, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_images_come_by_class_then_by_name_with_their_paths(tmp_path):
    pixels = {}
    for name in (
        "train/b/2.png",
        "train/b/10.png",
        "train/a/z.PNG",
        "train/a/.hidden.png",
        "test/a/x.png",
        "test/b/x.png",
    ):
        pixels[name] = save(random_image(), tmp_path / name)
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    (tmp_path / "train/.cache").mkdir()
    dataset = read(tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.train.names == ("train/a/z.PNG", "train/b/10.png", "train/b/2.png")
    assert dataset.train.labels.tolist() == [0, 1, 1]
    assert dataset.test.names == ("test/a/x.png", "test/b/x.png")
    for split in (dataset.train, dataset.test):
        for image, name in zip(split.images, split.names, strict=True):
            assert (image == pixels[name].transpose(2, 0, 1)).all()


def test_labels_count_as_unknown_truth_and_images_are_augmented(tmp_path):
    dataset = read(make_folder(tmp_path, height=33, width=40))
    assert not dataset.trusted
    assert (dataset.augment, dataset.padding) == ("crop-flip", 4)
    assert dataset.input_shape == (3, 33, 40)
    assert dataset.meta is None


def test_meta_folder_becomes_the_meta_set(tmp_path):
    dataset = read(make_folder(tmp_path, ("train", "test", "meta")))
    assert dataset.meta.names == ("meta/cat/a.png", "meta/cat/b.png", "meta/dog/a.png", "meta/dog/b.png")


def test_order_and_pixels_survive_many_tasks(tmp_path):
    make_folder(tmp_path, classes=("cat", "dog"))
    for i in range(CHUNK + 3):
        save(Image.new("RGB", (6, 6), (i % 256, i // 256, 7)), tmp_path / f"train/cat/n{i:04}.bmp")
    images = read(tmp_path).train.images[2 : 2 + CHUNK + 3].astype(int)
    assert (images[:, 0] + 256 * images[:, 1] == np.arange(CHUNK + 3)[:, None, None]).all()


def test_mean_and_std_are_those_of_the_training_pixels(tmp_path):
    dataset = read(make_folder(tmp_path))
    values = dataset.train.images.astype(float)
    assert dataset.mean == pytest.approx(values.mean(axis=(0, 2, 3)))
    assert dataset.std == pytest.approx(values.std(axis=(0, 2, 3)))


def test_constant_channel_has_deviation_one(tmp_path):
    make_folder(tmp_path)
    for path in tmp_path.glob("train/*/*.png"):
        save(Image.new("RGB", (6, 6), (9, 9, 9)), path)
    dataset = read(tmp_path)
    assert (dataset.mean, dataset.std) == ((9.0, 9.0, 9.0), (1.0, 1.0, 1.0))


def test_all_grey_images_have_one_channel(tmp_path):
    make_folder(tmp_path, mode="L")
    dataset = read(tmp_path)
    assert dataset.input_shape == (1, 6, 6)
    assert dataset.train.images.flags.c_contiguous
    assert (dataset.train.images[0, 0] == np.asarray(Image.open(tmp_path / "train/cat/a.png"))).all()
    assert len(dataset.mean) == len(dataset.std) == 1


def test_one_colour_image_makes_all_three_channels(tmp_path):
    make_folder(tmp_path, mode="L")
    save(random_image(), tmp_path / "test/dog/b.png")
    dataset = read(tmp_path)
    assert dataset.input_shape == (3, 6, 6)
    assert (dataset.train.images[:, 0] == dataset.train.images[:, 2]).all()


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_become_rgb(mode, tmp_path):
    make_folder(tmp_path)
    suffix = "tif" if mode == "CMYK" else "png"
    image = random_image().convert(mode)
    save(image, tmp_path / f"train/cat/a0.{suffix}")
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert (read(tmp_path).train.images[1] == expected).all()


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda stored: stored),
        (2, lambda stored: stored[:, ::-1]),
        (3, lambda stored: stored[::-1, ::-1]),
        (6, lambda stored: np.rot90(stored, -1)),
        (8, lambda stored: np.rot90(stored)),
    ],
)
def test_exif_orientation_is_applied(orientation, upright, tmp_path):
    stored = random_image(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = upright(np.asarray(stored))
    make_folder(tmp_path, height=expected.shape[0], width=expected.shape[1])
    save(stored, tmp_path / "train/cat/a0.png", exif=exif)
    assert (read(tmp_path).train.images[1] == expected.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("height", "width", "resized", "corner"),
    [(8, 20, (10, 4), (3, 0)), (20, 8, (4, 10), (0, 3)), (8, 8, (4, 4), (0, 0)), (4, 4, (4, 4), (0, 0))],
)
def test_image_size_resizes_the_shorter_side_and_keeps_the_centre(height, width, resized, corner, tmp_path):
    make_folder(tmp_path, height=5, width=7)
    image = random_image(height, width)
    save(image, tmp_path / "train/cat/a0.png")
    left, top = corner
    expected = image.resize(resized, Image.Resampling.BILINEAR).crop((left, top, left + 4, top + 4))
    dataset = read(tmp_path, image_size=4)
    assert dataset.input_shape == (3, 4, 4)
    assert (dataset.train.images[1] == np.asarray(expected).transpose(2, 0, 1)).all()


def test_different_sizes_name_both_images_and_the_option(tmp_path):
    make_folder(tmp_path)
    save(random_image(6, 9), tmp_path / "test/dog/b.png")
    assert refusal(tmp_path) == (
        f"{tmp_path}/test/dog/b.png: is 9 x 6 pixels, but {tmp_path}/train/cat/a.png is 6 x 6; "
        "give --image-size N to bring all images to N x N"
    )


def test_needs_a_root():
    assert refusal(None).startswith("--data-root is missing")


def test_missing_root(tmp_path):
    assert refusal(tmp_path / "nothing") == f"--data-root {tmp_path}/nothing: no such folder (it must hold train/)"


def test_a_missing_training_set_is_refused(tmp_path):
    make_folder(tmp_path, ["test"])
    assert refusal(tmp_path) == f"{tmp_path}/train: no such folder"


def test_one_folder_too_deep(tmp_path):
    make_folder(tmp_path)
    message = f"--data-root {tmp_path}/train: holds no train/; give the folder above it, which does"
    assert refusal(tmp_path / "train") == message


def test_a_name_that_is_not_utf_8(tmp_path):
    make_folder(tmp_path)
    os.rename(tmp_path / "train/cat/a.png", os.fsencode(tmp_path / "train/cat") + b"/\xff.png")
    assert refusal(tmp_path) == f"{tmp_path}/train/cat: the name b'\\xff.png' is not UTF-8; rename it"


def test_what_is_left_out_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/cat/loop.png").symlink_to("loop.png")
    (tmp_path / "train/cat/nowhere.png").symlink_to("gone.png")
    for name in ("new.heic", "notes.txt"):
        (tmp_path / "train/dog" / name).write_text("")
    with pytest.warns(UserWarning, match="4 entries .* are left out: cat/loop.png, cat/nowhere.png, dog/new.heic, ..."):
        names = load(FolderOptions(data_root=tmp_path)).train.names
    assert not {"train/cat/loop.png", "train/cat/nowhere.png"} & set(names)


def test_a_test_set_may_be_missing(tmp_path):
    make_folder(tmp_path, ["train"])
    assert load(FolderOptions(data_root=tmp_path)).test is None


@pytest.mark.parametrize("part", ["train", "test", "meta"])
def test_part_without_class_folders(part, tmp_path):
    make_folder(tmp_path, [p for p in ("train", "test") if p != part])
    (tmp_path / part).mkdir()
    (tmp_path / part / "a.png").write_bytes(b"")
    assert refusal(tmp_path) == f"{tmp_path}/{part}: has no class folders"


@pytest.mark.parametrize("part", ["train", "test", "meta"])
def test_class_folder_without_images(part, tmp_path):
    make_folder(tmp_path, ("train", "test", "meta"), ("cat", "dog", "emu"))
    for path in (tmp_path / part / "dog").iterdir():
        path.rename(path.with_suffix(".txt"))
    assert refusal(tmp_path).startswith(f"{tmp_path}/{part}/dog: holds no image (.jpg, ")


@pytest.mark.parametrize("part", ["test", "meta"])
def test_class_that_train_has_not(part, tmp_path):
    make_folder(tmp_path, ("train", "test", "meta"))
    make_folder(tmp_path, [part], ["emu"])
    assert refusal(tmp_path) == f"{tmp_path}/{part}/emu: train/ has no class 'emu'"


@pytest.mark.parametrize("part", ["test", "meta"])
def test_class_that_only_train_has(part, tmp_path):
    make_folder(tmp_path, ("train", "test", "meta"))
    make_folder(tmp_path, [p for p in ("train", "test", "meta") if p != part], ["emu"])
    assert refusal(tmp_path) == f"{tmp_path}/{part}/emu: no such folder, but train/ has the class 'emu'"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "ppm", "webp"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text " * 9])
def test_broken_image_is_named(damage, suffix, tmp_path):
    make_folder(tmp_path, height=40, width=40)
    broken = tmp_path / f"train/dog/a0.{suffix}"
    save(random_image(40, 40), broken)
    broken.write_bytes(damage(broken.read_bytes()))
    assert refusal(tmp_path).startswith(f"{broken}: cannot be read as an image (")


def test_first_of_several_broken_images_is_named(tmp_path):
    make_folder(tmp_path)
    for i in range(2 * CHUNK):
        (tmp_path / f"train/cat/n{i:04}.png").write_bytes(b"")
    assert refusal(tmp_path, image_size=6).startswith(f"{tmp_path}/train/cat/n0000.png: cannot be read")


def test_more_than_eight_bits_are_refused_instead_of_cut_off(tmp_path):
    make_folder(tmp_path)
    save(Image.fromarray(np.full((6, 6), 30_000, dtype=np.uint16)), tmp_path / "train/cat/a0.png")
    assert refusal(tmp_path) == f"{tmp_path}/train/cat/a0.png: has more than 8 bits per channel; convert it to 8 bits"


@pytest.mark.parametrize("link", ["train/cat/link.png", "train/emu"])
def test_links_are_followed(link, tmp_path):
    root = make_folder(tmp_path / "root")
    outside = make_folder(tmp_path / "outside")
    (root / link).symlink_to(outside / "train/cat/a.png" if link.endswith("png") else outside / "train/cat")
    if link == "train/emu":
        (root / "test/emu").symlink_to(outside / "test/cat")
    names = load(FolderOptions(data_root=root)).train.names
    assert any(name.startswith(link) for name in names)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_not_opened(tmp_path):
    make_folder(tmp_path)
    os.mkfifo(tmp_path / "train/cat/pipe.png")
    assert len(read(tmp_path).train) == 4


def test_a_class_folder_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cat").symlink_to("cat")
    assert "train/cat: cannot be opened" in refusal(tmp_path)
