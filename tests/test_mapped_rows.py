"""Training on features that stay in their file, against the same features in memory, and through the program."""

import json

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reweight_core import Dataset, FeatureRows, MappedArray, Split, configure, hookimpl, resume, train
from reweight_core.config.load_data import plan_of
from reweight_core.data.prepare import prepare
from reweight_core.testing import train_in
from reweight_core.testing.method_suite import assert_replays_like_eager, assert_same_state
from reweight_core.training.build import build_parts

COLUMNS = 6


def blobs(count, seed):
    rng = np.random.RandomState(seed)
    labels = np.arange(count) % 3
    return (4 * np.eye(3, COLUMNS)[labels] + rng.randn(count, COLUMNS)).astype(np.float32), labels


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same rows in files, one for each split, and as arrays."""
    root, mapped, arrays = tmp_path_factory.mktemp("rows"), {}, {}
    for seed, (part, count) in enumerate((("train", 60), ("test", 9), ("meta", 12))):
        values, labels = blobs(count, seed)
        values.tofile(root / part)
        mapped[part] = Split(FeatureRows((MappedArray(root / part, values.dtype, values.shape, 0),)), labels)
        arrays[part] = Split(values[:, :, None, None], labels)
    mean, std = (tuple(found.tolist()) for found in (values.mean(0).astype(float), values.std(0).astype(float)))
    return [Dataset(**splits, classes=("a", "b", "c"), mean=mean, std=std) for splits in (mapped, arrays)]


def parts(dataset, method, **options):
    given = {"model": "mlp", "epochs": 2, "batch_size": 8, "meta_batch_size": 4, "meta_size": 12, "device": "cpu"}
    config = configure(method=method, noise="uniform:0.4", **{**given, **options})
    return build_parts(config, prepare(dataset, plan_of(config)))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "gdw"},
        {"method": "l2rw", "with": ["mixup"]},
        {"method": "fsr", "dictionary_size": 6, "probe_size": 4},
        {"method": "crust", "mix": True, "warmup_epochs": 1},
        {"method": "gdw", "plant": 4, "meta_use": "both"},
        {"method": "erm", "with": ["fine-tune", "relabel"], "relabel_warmup_epochs": 1},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_training_on_mapped_rows_is_training_on_the_array(datasets, tmp_path, options):
    runs = [parts(dataset, **options) for dataset in datasets]
    accuracies = [train_in(tmp_path / str(i), one).summary["test_accuracy"] for i, one in enumerate(runs)]
    assert_same_state(*runs)
    assert accuracies[0] == accuracies[1]


def test_a_recorded_step_takes_the_rows_that_are_fed(datasets):
    assert_replays_like_eager(lambda **options: parts(datasets[0], "gdw", **options))


@pytest.fixture
def folder(tmp_path):
    """Rows of which a third has another label, with the true ones, and clean ones, for ``--data features``."""
    root = tmp_path / "embeddings"
    root.mkdir()
    for seed, (part, count) in enumerate((("train", 300), ("test", 60), ("meta", 60))):
        values, labels = blobs(count, seed)
        np.save(root / f"{part}.npy", values.astype(np.float16))
        wrong = (np.arange(count) // 3 % 3 == 0) & (part == "train")
        observed = np.where(wrong, (labels + 1) % 3, labels)
        np.save(root / f"{part}_labels.npy", np.array(["ant", "bee", "fly"])[observed])
        np.save(root / f"{part}_true_labels.npy", np.array(["ant", "bee", "fly"])[labels])
    return root


def test_an_interrupted_run_on_mapped_rows_goes_on_as_if_it_had_not_been(folder, tmp_path):
    class Interrupt:
        @hookimpl
        def observe_step(self, done, total):
            if done == 8:
                raise KeyboardInterrupt

    config = configure(
        method="gdw", data="features", data_root=folder, model="mlp", epochs=4, checkpoint_every="1epochs"
    )
    whole = train(attrs.evolve(config, out=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(attrs.evolve(config, out=tmp_path / "parts"), [Interrupt()])
    resumed = resume(tmp_path / "parts")
    one, other = (load_file(run.folder / "samples.safetensors") for run in (whole, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert whole.summary["test_accuracy"] == resumed.summary["test_accuracy"]


def test_wrong_labels_of_mapped_rows_are_found_and_corrected(folder, tmp_path, reweight):
    config = configure(method="gdw", data="features", data_root=folder, out=tmp_path / "run", model="mlp", epochs=10)
    assert train(config).summary["noise_auroc"] > 0.8
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["noise_rate"] == pytest.approx(102 / 300)
    assert reweight("audit", tmp_path / "run", "--out-of-sample", "no").status == 0
    done = reweight("apply", tmp_path / "run", "--out", tmp_path / "new", "--relabel", 0.5)
    assert done.status == 0, done.err
    assert f"reweight train --data features --data-root {tmp_path / 'new'}" in done.out
    rows, labels = (np.load(tmp_path / "new" / name) for name in ("train.npy", "train_labels.npy"))
    assert np.array_equal(rows, np.load(folder / "train.npy"))
    assert (labels == np.load(folder / "train_true_labels.npy")).mean() > 0.9
    for part in ("meta", "test"):
        assert np.array_equal(np.load(tmp_path / "new" / f"{part}.npy"), np.load(folder / f"{part}.npy"))
    again = ("--data", "features", "--data-root", tmp_path / "new", "--steps", 5, "--out", tmp_path / "again")
    assert reweight("train", *again).status == 0


def test_labels_of_new_rows_cannot_be_judged(folder, tmp_path, reweight):
    train(configure(data="features", data_root=folder, out=tmp_path / "run", steps=2))
    for new in (tmp_path / "new.csv", folder / "test.npy"):
        done = reweight("score", tmp_path / "run", new)
        assert done.status == 2 and done.err == (
            f"Error: {new}: score reads folders of images and CSV files; this run was trained on --data features\n"
        )


def test_fit_tries_what_it_tries_with_a_table(folder, tmp_path, reweight):
    given = ("--data", "features", "--data-root", folder, "--steps", 2, "--out", tmp_path / "best")
    done = reweight("fit", *given, "--candidates", "gce", "--json")
    assert done.status == 0, done.err
