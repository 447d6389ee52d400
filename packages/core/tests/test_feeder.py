import numpy as np
import pytest
import torch
from PIL import Image

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder
from reweight_core.data.images import ImageFiles

SIZE, COUNT = 6, 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    rng = np.random.RandomState(0)
    for i in range(COUNT):
        Image.fromarray(rng.randint(256, size=(9 + i, 14 - i, 3)).astype(np.uint8)).save(root / f"{i}.png")
    return ImageFiles(root, np.array([f"{i}.png" for i in range(COUNT)], dtype=object), SIZE)


def examples_of(images):
    split = Split(images, np.arange(COUNT) % 2)
    dataset = Dataset(split, None, ("a", "b"), (100.0,) * 3, (50.0,) * 3, augment="resized-crop")
    return Examples(split, dataset, CPU, torch.float64)


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


def test_every_epoch_has_an_order_and_crops_of_its_own(files):
    feeder = Feeder(examples_of(files), examples_of(files), 4, seed=5, workers=0)
    first, second = (list(feeder.epoch(number, "train", [4, 3])) for number in (0, 1))
    for kind in ("", "meta_"):
        ids, pixels = (
            [torch.cat([getattr(fed, kind + what) for fed in epoch]) for epoch in (first, second)]
            for what in ("ids", "pixels")
        )
        assert not torch.equal(*ids)
        for i in range(COUNT):
            # the same image in both epochs; in the meta set it may come twice
            one, other = (pixels[e][ids[e].tolist().index(i)] for e in (0, 1))
            assert not torch.equal(one, other)


def test_an_order_does_not_follow_from_the_sizes_of_the_batches(files):
    feeder = Feeder(examples_of(files), None, 4, seed=5, workers=0)
    one, other = (torch.cat([fed.ids for fed in feeder.epoch(0, "train", sizes)]) for sizes in ([4, 3], [2, 2, 3]))
    assert torch.equal(one, other)
