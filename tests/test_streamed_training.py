"""Training on image files that are read step by step, against the same images in memory."""

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from reweight_core import Dataset, ImageFiles, Split, UserError, configure, hookimpl, registry
from reweight_core.config.load_data import plan_of
from reweight_core.data.prepare import prepare
from reweight_core.runs.checkpoint import read
from reweight_core.testing import train_in
from reweight_core.testing.method_suite import assert_replays_like_eager, assert_same_state
from reweight_core.training.build import build_parts
from reweight_core.training.loop import train_epoch
from reweight_core.training.machine_errors import told_to_the_user
from reweight_core.training.state import TrainingState

SIZE = 8


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same images in files and as arrays."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.RandomState(0)
    splits = {}
    for part, count in (("train", 30), ("test", 6), ("meta", 8)):
        names = np.array([f"{part}{i}.png" for i in range(count)], dtype=object)
        for name in names:
            Image.fromarray(rng.randint(256, size=(SIZE, SIZE, 3)).astype(np.uint8)).save(root / name)
        splits[part] = Split(ImageFiles(root, names, SIZE), np.arange(count) % 2, tuple(names))
    in_files = Dataset(**splits, classes=("a", "b"), mean=(128.0,) * 3, std=(64.0,) * 3, augment="crop-flip", padding=1)
    arrays = {
        part: attrs.evolve(split, images=split.images.read(np.arange(len(split)))) for part, split in splits.items()
    }
    return in_files, attrs.evolve(in_files, **arrays)


def parts(dataset, method, **options):
    given = {
        "model": "resnet20",
        "epochs": 2,
        "batch_size": 8,
        "meta_batch_size": 4,
        "meta_size": 8,
        "workers": 0,
        "device": "cpu",
    }
    config = configure(method=method, **{**given, **options})
    return build_parts(config, prepare(dataset, plan_of(config)))


@pytest.mark.parametrize("augment", ["crop-flip", "resized-crop"])
def test_a_run_on_files_goes_on_within_an_epoch(datasets, tmp_path, augment):
    options = {"augment": augment, "checkpoint_every": "2steps", "keep": 9, "workers": 1}
    whole, resumed = (parts(datasets[0], "gdw", **options) for _ in range(2))
    train_in(tmp_path / "whole", whole)
    # of the second epoch, whose crops are others
    saved = [read(folder) for folder in sorted((tmp_path / "whole" / "checkpoints").iterdir())]
    (within,) = [kept for kept in saved if kept.manifest.epoch == 1 and kept.manifest.within]
    state = TrainingState(resumed)
    state.restore(within)
    resumed.model.train()
    train_epoch(state, state.next_epoch())
    assert_same_state(whole, resumed)


@pytest.mark.parametrize("method", ["gdw", "fsr"])
def test_training_on_files_is_training_on_the_array(datasets, tmp_path, method):
    options = {"dictionary_size": 6, "probe_size": 4} if method == "fsr" else {}
    runs = [parts(dataset, method, **options, workers=1) for dataset in datasets]
    accuracies = []
    for name, one in zip(("files", "array"), runs, strict=True):
        accuracies.append(train_in(tmp_path / name, one).summary["test_accuracy"])
    assert_same_state(*runs)
    assert accuracies[0] == accuracies[1]


def test_training_on_both_sets_in_files_is_training_on_the_arrays(datasets, tmp_path, monkeypatch):
    class OnBoth:
        def __init__(self, config, context):
            self.trusted = []

        @hookimpl
        def plan_stages(self, stage):
            return [attrs.evolve(stage, source="both")]

        @hookimpl
        def transform_batch(self, batch):
            self.trusted.append(batch.labels[batch.trusted].tolist())
            return batch

    record = attrs.evolve(registry.find("method", "erm"), build=OnBoth)
    monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)
    # the meta set lies in a folder of its own
    meta = datasets[0].meta.images
    for name in meta.names:
        Image.open(meta.root / name).save(tmp_path / name)
    elsewhere = attrs.evolve(datasets[0], meta=attrs.evolve(datasets[0].meta, images=attrs.evolve(meta, root=tmp_path)))
    runs = [parts(dataset, "erm", workers=1) for dataset in (elsewhere, datasets[1])]
    for name, one in zip(("files", "array"), runs, strict=True):
        train_in(tmp_path / name, one)
    assert_same_state(*runs)
    # every clean example once in each of the two epochs
    assert sorted(label for labels in runs[0].hooks.plugins["erm"].trusted for label in labels) == [0] * 8 + [1] * 8


def test_clean_examples_in_files_that_are_trained_on_are_those_in_arrays(datasets, tmp_path):
    runs = [parts(dataset, "gdw", workers=1, meta_use="both") for dataset in datasets]
    for name, one in zip(("files", "array"), runs, strict=True):
        train_in(tmp_path / name, one)
    assert_same_state(*runs)
    assert len(runs[0].train) == 34
    assert runs[0].data.train.names == runs[1].data.train.names


@pytest.mark.parametrize("augment", ["crop-flip", "resized-crop"])
def test_a_recorded_step_takes_the_images_that_are_fed(datasets, augment):
    assert_replays_like_eager(lambda **options: parts(datasets[0], "gdw", augment=augment, **options))


def test_a_run_on_files_follows_from_its_seed_for_any_number_of_workers(datasets, tmp_path):
    weights = []
    for workers in (0, 2):
        one = parts(datasets[0], "gdw", augment="resized-crop", workers=workers)
        train_in(tmp_path / str(workers), one)
        weights.append(torch.cat([p.detach().flatten() for p in one.model.parameters()]))
    assert torch.equal(*weights)


def test_a_broken_image_to_test_on_is_found_before_training(datasets, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = np.array(["broken.png"] * 4, dtype=object)
    broken = attrs.evolve(datasets[0], test=Split(ImageFiles(tmp_path, names, SIZE), np.arange(4) % 2))
    with pytest.raises(UserError, match=r"broken\.png: cannot be read"):
        train_in(tmp_path / "run", parts(broken, "erm", workers=1))


def test_a_killed_reader_is_said_in_one_line():
    with pytest.raises(UserError, match="a process that reads images was killed") as refused, told_to_the_user():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert "\n" not in str(refused.value)
