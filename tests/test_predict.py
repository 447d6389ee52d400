"""From a folder of photographs of all sizes, without test split or clean labels, to predictions for new ones."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import reweight_core
from reweight_core import UserError, configure, train
from reweight_core.cli.main import main
from reweight_core.config.load_data import load_data
from reweight_core.data.images import decode
from reweight_core.models.build import build_model
from reweight_core.runs.checkpoint import load_latest
from reweight_core.runs.evaluate import evaluate


def run(*arguments):
    try:
        main([str(part) for part in arguments])
    except SystemExit as finished:
        return finished.code or 0
    return 0


def photograph(rng, label, mode="RGB"):
    """A picture of any size whose brightness tells its class."""
    height, width = rng.randint(20, 60, 2)
    pixels = np.clip(rng.randint(0, 60, (height, width, 3)) + 150 * label, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("photos"), np.random.RandomState(0)
    for label, name in enumerate(("dark", "light")):
        (root / "train" / name).mkdir(parents=True)
        for number in range(40):
            mode = ("RGB", "L", "RGBA")[number % 3]
            photograph(rng, label, mode).save(root / "train" / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    options = ["--data", "folder", "--data-root", photos, "--image-size", "16", "--test-from", "split:0.2"]
    small = ["--model", "mlp", "--epochs", "6", "--dictionary-size", "10", "--probe-size", "8", "--warmup-epochs", "2"]
    assert run("train", "--method", "fsr", *options, *small, "--batch-size", "16", "--out", folder) == 0
    return folder


def test_a_share_of_every_class_is_held_out_for_testing(photos, trained):
    summary = json.loads((trained / "summary.json").read_text())
    data = json.loads((trained / "config.json").read_text())["data"]
    assert (data["train_size"], data["test_size"]) == (64, 16)
    assert summary["test_accuracy"] == evaluate(trained)["test_accuracy"] == 1.0


def test_a_folder_without_a_test_set_names_the_ways_out(photos, tmp_path, capsys):
    assert run("train", "--data", "folder", "--data-root", photos, "--image-size", "16", "--out", tmp_path / "r") == 2
    message = capsys.readouterr().err
    assert message.startswith("Error: --data folder: there is no test set")
    assert "--test-from split:0.1" in message and "--test-from none" in message


def test_without_a_test_set_accuracy_is_null_and_said_so(photos, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--data", "folder", "--data-root", photos, "--image-size", "16", "--test-from", "none", "--steps", "3"]
    assert run("train", *options, "--model", "mlp", "--out", folder) == 0
    assert "there is no test set" in capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test_accuracy"] is None and summary["test_accuracy_mean5"] is None
    assert run("eval", folder) == 2
    assert "nothing to test on" in capsys.readouterr().err


def test_a_held_out_test_set_that_is_another_now_is_not_tested_on(tmp_path, capsys):
    rng = np.random.RandomState(5)
    root, folder = tmp_path / "photos", tmp_path / "run"
    for label, name in enumerate(("dark", "light")):
        (root / "train" / name).mkdir(parents=True)
        for number in range(10):
            photograph(rng, label).save(root / "train" / name / f"{number}.png")
    options = ["--data", "folder", "--data-root", root, "--image-size", "16", "--test-from", "split:0.2"]
    assert run("train", *options, "--model", "mlp", "--steps", "2", "--batch-size", "4", "--out", folder) == 0
    assert run("eval", folder) == 0
    for number in range(10, 20):
        photograph(rng, 0).save(root / "train" / "dark" / f"{number}.png")
    assert run("eval", folder) == 2
    assert "are not those of the run" in capsys.readouterr().err


def test_copies_of_training_images_are_refused_as_a_meta_set_and_warned_of_as_a_test_set(photos, tmp_path, capsys):
    root = tmp_path / "photos"
    shutil.copytree(photos / "train", root / "train")
    shutil.copytree(photos / "train", root / "test")
    command = ["inspect", "--data", "folder", "--data-root", root, "--image-size", "16"]
    assert run(*command) == 0
    assert "the test accuracy will be too good" in capsys.readouterr().err
    shutil.copytree(photos / "train", root / "meta")
    assert run(*command) == 2
    assert "the meta set must be apart from training" in capsys.readouterr().err


@pytest.mark.parametrize("target", [".", "none/out.csv", "file/out.csv"])
def test_where_no_file_can_be_is_said_before_any_work(target, trained, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert run("predict", trained, photos / "train" / "dark" / "0.png", "--csv", target) == 2
    assert f"--csv {target}: must be a file in a folder that exists" in capsys.readouterr().err


def test_a_network_for_images_is_refused_on_features(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("\n".join(["label,x", *(f"{'ab'[i % 2]},{i}" for i in range(20))]))
    command = ["train", "--data", "csv", "--data-root", tmp_path, "--test-from", "none", "--out", tmp_path / "run"]
    assert run(*command, "--model", "resnet20") == 2
    assert "give --model linear or mlp" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["split", "split:", "split:0", "split:1", "split:x", "fold", "split:nan"])
def test_a_wrong_test_from_is_refused(text):
    with pytest.raises(UserError, match="--test-from"):
        configure(test_from=text)


def test_a_share_that_leaves_nothing_for_training_is_refused(photos, tmp_path):
    config = configure(data="folder", data_root=photos, image_size=8, test_from="split:0.999", out=tmp_path / "r")
    with pytest.raises(UserError, match=r"^--test-from split:0\.999: leaves no example of class 'dark' for training"):
        train(config)


def test_held_out_examples_are_neither_trained_on_nor_meta_nor_validation_examples():
    data = load_data(configure(data="digits", test_from="split:0.2", meta_size=50, val_size=30, seed=3))
    images = [
        {split.images[i].tobytes() for i in range(len(split))} for split in (data.train, data.meta, data.val, data.test)
    ]
    assert len(set.union(*images)) == sum(map(len, images))
    assert np.bincount(data.test.labels).min() >= 20
    plain = load_data(configure(data="digits", meta_size=50, val_size=30, seed=3))
    assert plain.fingerprint != data.fingerprint


def test_predictions_are_those_of_the_checkpoint_on_normalised_images(photos, trained):
    paths = sorted((photos / "train").glob("*/*.png"))[::7]
    classifier = reweight_core.load(trained)
    manifest = load_latest(trained / "checkpoints").manifest
    network = build_model("mlp", (3, 16, 16), 2).eval()
    newest = sorted((trained / "checkpoints").glob("step-*"))[-1]
    network.load_state_dict(load_file(newest / "model.safetensors"))
    pixels = np.stack([decode(path, (16, 16))[0] for path in paths]).transpose(0, 3, 1, 2).astype(np.float32)
    normal = (pixels - np.array(manifest.mean)[:, None, None]) / np.array(manifest.std)[:, None, None]
    with torch.no_grad():
        expected = network(torch.from_numpy(normal).float())
        found = classifier(torch.stack([classifier.read(path) for path in paths]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_file_has_a_line_for_each_image_with_all_probabilities(photos, trained, tmp_path, capsys):
    new, rng = tmp_path / "new", np.random.RandomState(9)
    new.mkdir()
    for number, label in enumerate((0, 1, 1, 0)):
        photograph(rng, label).save(new / f"{number}.jpg")
    out = tmp_path / "predictions.csv"
    assert run("predict", trained, new, new / "2.jpg", "--csv", out) == 0
    rows = list(csv.DictReader(out.open()))
    assert [row["path"] for row in rows] == [str(new / f"{n}.jpg") for n in (0, 1, 2, 3, 2)]
    assert [row["predicted"] for row in rows] == ["dark", "light", "light", "dark", "light"]
    for row in rows:
        assert float(row["p(dark)"]) + float(row["p(light)"]) == pytest.approx(1, abs=2e-6)
        assert float(row["probability"]) == max(float(row["p(dark)"]), float(row["p(light)"]))
    capsys.readouterr()
    assert run("predict", trained, new, "--json") == 0
    for found, row in zip(json.loads(capsys.readouterr().out), rows, strict=False):
        assert (found["path"], found["predicted"]) == (row["path"], row["predicted"])
        assert found["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
        assert found["probabilities"]["dark"] == pytest.approx(float(row["p(dark)"]), abs=1e-6)
    assert run("predict", trained, new / "0.jpg") == 0
    assert "dark" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"new", "predictions.csv"}


def test_a_photograph_lies_as_its_orientation_says(trained, tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    read = reweight_core.load(trained).read(tmp_path / "turned.png")
    assert (read[:, :8] == 0).all() and (read[:, 8:] == 255).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.jpg", "no such file or folder"),
        (lambda folder: folder, "holds no image"),
        (lambda folder: (folder / "broken.jpg", (folder / "broken.jpg").write_bytes(b"no image"))[0], "cannot be read"),
    ],
)
def test_what_cannot_be_predicted_is_named_and_nothing_is_written(make, message, trained, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert run("predict", trained, make(tmp_path), "--csv", out) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not out.exists()


def test_a_grey_network_takes_colour_images(tmp_path):
    run_of_digits = train(configure(data="digits", steps=2, meta_size=0, out=tmp_path / "run"))
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 1] = 200
    Image.fromarray(colour).save(tmp_path / "green.png")
    with pytest.warns(UserWarning, match="it sees those in colour as grey"):
        read = reweight_core.load(run_of_digits.folder).read(tmp_path / "green.png")
    assert read.shape == (1, 8, 8)
    assert (read[0].numpy() == np.asarray(Image.open(tmp_path / "green.png").convert("L"))).all()


def test_what_is_loaded_is_what_was_trained(tmp_path):
    finished = train(configure(data="digits", steps=3, meta_size=0, out=tmp_path / "run", **{"with": ["ema"]}))
    loaded = reweight_core.load(finished.folder)
    assert loaded.classes == tuple("0123456789")
    assert not loaded.training
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)


def test_a_table_of_features_is_trained_on_and_takes_no_images(tmp_path, photos, capsys):
    rng = np.random.RandomState(0)
    rows = [f"{'ab'[i % 2]},{rng.randn() + 3 * (i % 2)},{rng.randn()}" for i in range(300)]
    (tmp_path / "train.csv").write_text("\n".join(["label,x,y", *rows]))
    folder = tmp_path / "run"
    options = ["--data-root", tmp_path, "--model", "mlp", "--epochs", "10", "--test-from", "split:0.2"]
    assert run("train", "--method", "gdw", "--data", "csv", *options, "--meta-size", "20", "--out", folder) == 0
    assert json.loads((folder / "summary.json").read_text())["test_accuracy"] > 0.85
    capsys.readouterr()
    assert run("predict", folder, photos / "train" / "dark" / "0.png") == 2
    assert "trained on 2 features, not on images" in capsys.readouterr().err
    capsys.readouterr()
    (tmp_path / "train.csv").write_text("\n".join(["label,x,y", *rows, "a,99,99"]))
    assert run("eval", folder) == 2
    assert (
        "the training set of 'csv' is not that of the run any more (other means or deviations of its columns)"
        in capsys.readouterr().err
    )
