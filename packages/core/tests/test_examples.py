import itertools

import numpy as np
import pytest
import torch

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples

MEAN, STD = (100.0, 120.0), (50.0, 8.0)
CHANNELS, HEIGHT, WIDTH = 2, 5, 6


def make(count=3, augment="none", padding=2, mode="reflect", dtype=torch.float64, override=None):
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
        padding_mode=mode,
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


def candidates(image, padding, mode, crop=True, flip=True):
    """Every output that augmentation may give for one image, by (row, column, flipped)."""
    padding = padding if crop else 0
    border = ((0, 0), (padding, padding), (padding, padding))
    padded = np.pad(image, border, mode="reflect" if mode == "reflect" else "constant")
    shifts = range(2 * padding + 1)
    return {
        (row, column, flipped): window[:, :, ::-1] if flipped else window
        for row, column in itertools.product(shifts, shifts)
        for flipped in ((False, True) if flip else (False,))
        for window in [padded[:, row : row + HEIGHT, column : column + WIDTH]]
    }


def drawn(examples, images, padding, mode, draws, **kinds):
    """Draw each image often; return how often each candidate came. Anything else fails."""
    ids = torch.arange(len(images)).repeat(draws)
    outputs = pixels_of(examples.batch(ids, generator()))
    by_bytes = [
        {window.tobytes(): key for key, window in candidates(image, padding, mode, **kinds).items()} for image in images
    ]
    counts = dict.fromkeys(candidates(images[0], padding, mode, **kinds), 0)
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
    @pytest.mark.parametrize("mode", ["reflect", "zero"])
    @pytest.mark.parametrize("padding", [1, 2, 3])
    def test_crops_are_windows_of_the_padded_image_and_all_are_equally_likely(self, padding, mode):
        images, examples = make(augment="crop", padding=padding, mode=mode)
        counts = drawn(examples, images, padding, mode, draws=2000, flip=False)

        assert len(counts) == (2 * padding + 1) ** 2
        assert_uniform(counts)

    @pytest.mark.parametrize("mode", ["reflect", "zero"])
    def test_crop_and_flip_are_independent(self, mode):
        images, examples = make(augment="crop-flip", padding=2, mode=mode)
        counts = drawn(examples, images, 2, mode, draws=3000)

        assert len(counts) == 50
        assert_uniform(counts)

    def test_half_of_the_images_are_flipped_and_none_is_cropped(self):
        images, examples = make(augment="flip")
        counts = drawn(examples, images, 2, "reflect", draws=1000, crop=False)

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
        images, examples = make(augment="crop-flip", mode="zero")
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
