import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.images import ImageFiles
from reweight_core.errors import UserError

MEAN, STD = (100.0, 120.0), (50.0, 8.0)
CHANNELS, HEIGHT, WIDTH = 2, 5, 6


def make(count=3, augment="none", padding=2, dtype=torch.float64, override=None):
    """Images in which no two pixels are alike, so that an output tells where each of its pixels came from."""
    pixels = np.random.RandomState(0).permutation(count * CHANNELS * HEIGHT * WIDTH) + 1
    images = pixels.astype(np.uint8).reshape(count, CHANNELS, HEIGHT, WIDTH)
    assert pixels.max() < 256
    split = Split(images, np.arange(count) % 2)
    dataset = Dataset(
        train=split,
        test=split,
        classes=("a", "b"),
        mean=MEAN,
        std=STD,
        augment=augment,
        padding=padding,
    )
    return images, Examples(split, dataset, torch.device("cpu"), dtype, override)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels_of(batch):
    """Undo the normalisation."""
    inputs = batch.inputs.double().numpy()
    raw = inputs * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]
    assert abs(raw - raw.round()).max() < 1e-6
    return raw.round().astype(np.uint8)


def candidates(image, padding, crop=True, flip=True):
    """Every output that augmentation may give for one image, by (row, column, flipped)."""
    padding = padding if crop else 0
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    shifts = range(2 * padding + 1)
    return {
        (row, column, flipped): window[:, :, ::-1] if flipped else window
        for row, column in itertools.product(shifts, shifts)
        for flipped in ((False, True) if flip else (False,))
        for window in [padded[:, row : row + HEIGHT, column : column + WIDTH]]
    }


def drawn(examples, images, padding, draws, **kinds):
    """Draw each image often; return how often each candidate came. Anything else fails."""
    ids = torch.arange(len(images)).repeat(draws)
    outputs = pixels_of(examples.batch(ids, generator()))
    by_bytes = [
        {window.tobytes(): key for key, window in candidates(image, padding, **kinds).items()} for image in images
    ]
    counts = dict.fromkeys(candidates(images[0], padding, **kinds), 0)
    for i, output in zip(ids.tolist(), outputs, strict=True):
        counts[by_bytes[i][output.tobytes()]] += 1
    return counts


def assert_uniform(counts):
    total, kinds = sum(counts.values()), len(counts)
    deviation = (total / kinds * (1 - 1 / kinds)) ** 0.5
    for key, count in counts.items():
        assert abs(count - total / kinds) < 4.5 * deviation, key


class TestWithoutAugmentation:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_batch_is_the_normalised_images_at_its_positions(self, dtype):
        images, examples = make(dtype=dtype)
        ids = torch.tensor([2, 0, 0])

        batch = examples.batch(ids, generator())

        expected = (images[ids].astype(float) - np.reshape(MEAN, (2, 1, 1))) / np.reshape(STD, (2, 1, 1))
        assert batch.inputs.dtype == dtype
        torch.testing.assert_close(batch.inputs.double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)
        assert torch.equal(batch.ids, ids)
        assert batch.labels.tolist() == [0, 0, 0]
        assert len(examples) == 3

    def test_labels_are_those_of_the_positions(self):
        _, examples = make()

        assert examples.batch(torch.tensor([1, 0, 2, 1]), None).labels.tolist() == [1, 0, 0, 1]

    def test_nothing_is_drawn(self):
        _, examples = make()
        source = generator()
        examples.batch(torch.arange(3), source)

        assert torch.equal(source.get_state(), generator().get_state())

    @pytest.mark.parametrize("augment", ["crop", "flip", "crop-flip"])
    def test_without_a_generator_nothing_is_augmented(self, augment):
        images, examples = make(augment=augment)

        assert np.array_equal(pixels_of(examples.batch(torch.arange(3), None)), images)

    def test_an_augmentation_given_overrides_that_of_the_dataset(self):
        images, plain = make(augment="crop-flip", override="none")
        _, flipped = make(augment="crop", override="flip")
        many = torch.zeros(50, dtype=torch.int64)

        assert np.array_equal(pixels_of(plain.batch(torch.arange(3), generator())), images)
        outputs = {output.tobytes() for output in pixels_of(flipped.batch(many, generator()))}
        assert outputs == {images[0].tobytes(), images[0][:, :, ::-1].tobytes()}


class TestAugmentation:
    @pytest.mark.parametrize("padding", [1, 2, 3])
    def test_crops_are_windows_of_the_padded_image_and_all_are_equally_likely(self, padding):
        images, examples = make(augment="crop", padding=padding)
        counts = drawn(examples, images, padding, draws=2000, flip=False)

        assert len(counts) == (2 * padding + 1) ** 2
        assert_uniform(counts)

    def test_crop_and_flip_are_independent(self):
        images, examples = make(augment="crop-flip", padding=2)
        counts = drawn(examples, images, 2, draws=3000)

        assert len(counts) == 50
        assert_uniform(counts)

    def test_half_of_the_images_are_flipped_and_none_is_cropped(self):
        images, examples = make(augment="flip")
        counts = drawn(examples, images, 2, draws=1000, crop=False)

        assert_uniform(counts)

    def test_a_padding_of_zero_crops_nothing(self):
        images, examples = make(augment="crop", padding=0)

        assert np.array_equal(pixels_of(examples.batch(torch.arange(3), generator())), images)

    def test_the_images_of_a_batch_are_cropped_each_for_itself(self):
        _, examples = make(augment="crop", padding=2)
        outputs = pixels_of(examples.batch(torch.zeros(40, dtype=torch.int64), generator()))

        assert len({output.tobytes() for output in outputs}) > 10

    def test_the_same_state_gives_the_same_batch_and_the_state_moves_on(self):
        _, examples = make(augment="crop-flip")
        ids = torch.arange(3).repeat(10)
        source = generator(5)
        first, second = examples.batch(ids, source), examples.batch(ids, source)

        assert torch.equal(examples.batch(ids, generator(5)).inputs, first.inputs)
        assert not torch.equal(first.inputs, second.inputs)

    def test_the_global_generator_is_not_used(self):
        _, examples = make(augment="crop-flip")
        state = torch.get_rng_state()
        examples.batch(torch.arange(3), generator())

        assert torch.equal(torch.get_rng_state(), state)

    def test_the_stored_images_stay(self):
        images, examples = make(augment="crop-flip")
        examples.batch(torch.arange(3), generator())

        assert np.array_equal(examples.images.numpy(), images)

    def test_labels_and_positions_are_unchanged(self):
        _, examples = make(augment="crop-flip")
        ids = torch.tensor([1, 2, 0, 1])
        batch = examples.batch(ids, generator())

        assert torch.equal(batch.ids, ids)
        assert batch.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_reflect_padding_may_exceed_the_image(size):
    row = np.arange(size, dtype=np.uint8)
    split = Split(np.tile(row, (2, 1, size, 1)), np.array([0, 1]))
    dataset = Dataset(split, split, ("a", "b"), (0.0,), (1.0,), augment="crop", padding=5)
    examples = Examples(split, dataset, torch.device("cpu"), torch.float64)
    windows = {tuple(image[0, 0]) for image in pixels_of_row(examples)}
    padded = np.pad(row, 5, mode="reflect") if size > 1 else np.zeros(11, np.uint8)
    assert windows == {tuple(padded[start : start + size]) for start in range(11)}


def pixels_of_row(examples):
    return examples.batch(torch.zeros(500, dtype=torch.int64), generator()).inputs.numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    rng = np.random.RandomState(0)
    for i in range(7):
        Image.fromarray(rng.randint(256, size=(9 + i, 14 - i, 3)).astype(np.uint8)).save(root / f"{i}.png")
    return ImageFiles(root, np.array([f"{i}.png" for i in range(7)], dtype=object), 6)


def examples_of(images, augment="resized-crop"):
    split = Split(images, np.arange(7) % 2)
    dataset = Dataset(split, None, ("a", "b"), (100.0,) * 3, (50.0,) * 3, augment=augment, padding=1)
    return Examples(split, dataset, torch.device("cpu"), torch.float64)


def test_examples_in_files_are_those_of_the_array(files):
    array = files.read(np.arange(7))
    ids = torch.tensor([5, 0, 5])
    in_files, resident = (examples_of(images, "crop-flip") for images in (files, array))
    for generator in (None, 4):
        one, other = (
            e.batch(ids, generator and torch.Generator().manual_seed(generator)) for e in (in_files, resident)
        )
        assert one.inputs.shape == (3, 3, 6, 6) and torch.equal(one.labels, other.labels)
    assert torch.equal(in_files.batch(ids, None).inputs, resident.batch(ids, None).inputs)
    pixels = torch.from_numpy(files.read(ids.numpy()))
    fed = in_files.batch(ids, torch.Generator().manual_seed(4), pixels)
    assert torch.equal(fed.inputs, resident.batch(ids, torch.Generator().manual_seed(4)).inputs)


def test_going_through_examples_in_order_gives_them_once_and_unaugmented(files):
    array = files.read(np.arange(7))
    for examples, workers in ((examples_of(files), 0), (examples_of(files), 2), (examples_of(array, "flip"), 0)):
        batches = list(examples.in_order(3, workers))
        assert [len(batch.labels) for batch in batches] == [3, 3, 1]
        inputs = torch.cat([batch.inputs for batch in batches])
        assert torch.equal(inputs, (torch.from_numpy(array) - 100.0).double() / 50)


def test_an_array_cannot_have_crops_of_random_area(files):
    with pytest.raises(UserError, match="--augment resized-crop"):
        examples_of(files.read(np.arange(7)))
