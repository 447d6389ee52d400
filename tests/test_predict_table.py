"""From a table of features to predictions for the rows of another."""

import csv
import json
import shutil

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

import reweight_core
from reweight_core import UserError, configure, train
from reweight_core.cli.main import main
from reweight_core.config.load_data import load_data as prepared
from reweight_core.runs import checkpoint


def run(*arguments):
    try:
        main([str(part) for part in arguments])
    except SystemExit as finished:
        return finished.code or 0
    return 0


def rows_of(rng, count, first_id):
    """Rows of two classes that overlap, in units as real tables have them."""
    rows = []
    for number in range(count):
        label = number % 2
        age, stamp = 30 + 8 * rng.randn() + 12 * label, 1_700_000_000 + 500 * rng.randn() + 600 * label
        rows.append([("no", "yes")[label], f"{age:.3f}", "7", f"{stamp:.6f}", f"p{first_id + number}"])
    return rows


def write(path, columns, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("table"), np.random.RandomState(0)
    for part, count, first in (("train", 300, 0), ("test", 101, 1000)):
        write(root / f"{part}.csv", ["label", "age", "constant", "time", "id"], rows_of(rng, count, first))
    return root


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    options = ["--data-root", root, "--model", "mlp", "--epochs", "5", "--meta-size", "20", "--out", folder]
    assert run("train", "--method", "gdw", "--data", "csv", *options) == 0
    return folder


@pytest.fixture(scope="module")
def trained_on_images(tmp_path_factory):
    return train(configure(data="digits", steps=1, meta_size=0, out=tmp_path_factory.mktemp("images") / "run")).folder


def refusal(run_folder, path, out, capsys):
    assert run("predict", run_folder, path, "--csv", out) == 2
    assert not out.exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_predictions_for_the_test_set_are_as_good_as_eval_says(root, trained, tmp_path, capsys):
    out = tmp_path / "predictions.csv"
    assert run("predict", trained, root / "test.csv", "--csv", out) == 0
    found = list(csv.DictReader(out.open()))
    assert list(found[0]) == ["row", "predicted", "probability", "p(no)", "p(yes)"]
    given = list(csv.DictReader((root / "test.csv").open()))
    assert [row["row"] for row in found] == [row["id"] for row in given]
    for row in found:
        assert float(row["p(no)"]) + float(row["p(yes)"]) == pytest.approx(1, abs=2e-6)
        assert float(row["probability"]) == float(row[f"p({row['predicted']})"])
    accuracy = np.mean([row["predicted"] == truth["label"] for row, truth in zip(found, given, strict=True)])
    capsys.readouterr()
    assert run("eval", trained, "--json") == 0
    assert accuracy == json.loads(capsys.readouterr().out)["test_accuracy"]
    assert 0.8 < accuracy < 1


@pytest.mark.parametrize("part", ["train", "test"])
def test_rows_are_standardised_bit_for_bit_as_in_training(part, root, trained):
    rows, names = reweight_core.load(trained).read_table(root / f"{part}.csv")
    dataset = prepared(configure(data="csv", data_root=root, meta_size=0)).dataset
    expected = getattr(dataset, part)
    assert rows.numpy().dtype == expected.images.dtype
    assert rows.numpy().tobytes() == expected.images.tobytes()
    assert names == expected.names


def test_the_network_takes_what_read_table_gives(root, trained):
    classifier = reweight_core.load(trained)
    assert classifier.features.names == ("age", "constant", "time")
    rows, _ = classifier.read_table(root / "test.csv")
    with torch.no_grad():
        assert torch.equal(classifier(rows), classifier.network(rows))


def test_columns_are_found_by_name_whatever_else_is_there(root, trained, tmp_path):
    given = list(csv.DictReader((root / "test.csv").open()))
    columns = ["remark", "time", "id", "age", "constant"]
    other = write(tmp_path / "other.csv", columns, [[row.get(name, "none") for name in columns] for row in given])
    classifier = reweight_core.load(trained)
    assert torch.equal(classifier.read_table(other)[0], classifier.read_table(root / "test.csv")[0])


def test_rows_without_an_id_are_named_by_file_and_line_and_files_follow_each_other(trained, tmp_path, capsys):
    one = write(tmp_path / "one.csv", ["age", "time", "constant"], [[20, 1.7e9, 7], [50, 1.7e9, 7]])
    two = write(tmp_path / "two.csv", ["id", "age", "time", "constant"], [["", 50, 1.7e9, 7], ["q", 20, 1.7e9, 7]])
    out = tmp_path / "out.csv"
    assert run("predict", trained, one, two, "--csv", out) == 0
    found = list(csv.DictReader(out.open()))
    assert [row["row"] for row in found] == [f"{one}:2", f"{one}:3", f"{two}:2", "q"]
    for name in ("predicted", "probability"):
        assert found[0][name] == found[3][name] and found[1][name] == found[2][name]
    capsys.readouterr()
    assert run("predict", trained, two) == 0
    assert "q" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["age,constant", "30,7"], "new.csv: has no column 'time', which is a feature of the training set"),
        (["age,constant,time", "30,7,1", "old,7,2"], "new.csv, line 3: age 'old' is no finite number"),
        (["age,constant,time", "30,7"], "new.csv, line 2: does not have 3 columns"),
        (["age,constant,time"], "new.csv: has no rows"),
    ],
)
def test_a_table_with_a_mistake_is_one_line_that_says_where(lines, message, trained, tmp_path, capsys):
    path = tmp_path / "new.csv"
    path.write_text("\n".join(lines))
    assert message in refusal(trained, path, tmp_path / "out.csv", capsys)


def test_files_of_the_other_kind_are_refused(root, trained, trained_on_images, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    out = tmp_path / "out.csv"
    assert "new.png: the network was trained on 3 features, not on images" in refusal(
        trained, tmp_path / "new.png", out, capsys
    )
    assert "cannot be read as CSV" in refusal(trained, tmp_path, out, capsys)
    assert "cannot be read as CSV" in refusal(trained, tmp_path / "none.csv", out, capsys)
    assert "test.csv: cannot be read as an image" in refusal(trained_on_images, root / "test.csv", out, capsys)
    with pytest.raises(UserError, match="trained on images, not on features"):
        reweight_core.load(trained_on_images).read_table(root / "test.csv")
    with pytest.raises(UserError, match="trained on 3 features, not on images"):
        reweight_core.load(trained).read(tmp_path / "new.png")


def test_a_run_on_features_without_names_says_so(root, trained, tmp_path, capsys):
    nameless = shutil.copytree(trained, tmp_path / "nameless")
    newest = checkpoint.load_latest(nameless / "checkpoints")
    shutil.rmtree(nameless / "checkpoints")
    manifest = attrs.evolve(newest.manifest, features=None)
    checkpoint.save(nameless / "checkpoints", attrs.evolve(newest, manifest=manifest), keep=2)
    line = refusal(nameless, root / "test.csv", tmp_path / "out.csv", capsys)
    assert "has features without names, and its plugin does not" in line
    assert run("eval", nameless) == 0
