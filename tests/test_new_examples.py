"""Predictions for new examples that the plugin of a run's own dataset reads."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from reweight_core import UserError, load
from reweight_core.cli.main import main

MODULE = """
import attrs
import numpy as np

from reweight_core import DataPlugin, option


@attrs.frozen
class Options:
    words_scale: float = option(2.0, "What a letter counts.")


def vectors(config, texts):
    counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)
    return (config.words_scale * counts)[:, :, None, None]


def build(config):
    from reweight_core import Dataset, Split

    texts = ["aab", "aaab", "aa", "bbc", "bcc", "bb"] * 20
    labels = np.array([0, 0, 0, 1, 1, 1] * 20, dtype=np.int64)
    split = Split(vectors(config, texts), labels)
    return Dataset(train=split, test=split, classes=("a", "b"), mean=(1.0,) * 3, std=(2.0,) * 3)


def read_new(config, path):
    texts = path.read_text().split()
    return vectors(config, texts), texts


plugin = DataPlugin("words", "counts letters", build, Options, read_new=read_new)
"""


def run(*arguments):
    try:
        main([str(part) for part in arguments])
    except SystemExit as finished:
        return finished.code or 0
    return 0


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Install the dataset, train on it and return where its module lies."""
    site = tmp_path / "site"
    info = site / "words_data-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "words_data.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: words-data\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reweight.data]\nwords = words_data:plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.txt").write_text("aaaa ccbb")
    options = ["--model", "mlp", "--epochs", "10", "--batch-size", "20", "--words-scale", "3", "--out", "run"]
    assert run("train", "--data", "words", *options) == 0
    yield site / "words_data.py"
    sys.modules.pop("words_data", None)


def change(module, old, new):
    module.write_text(MODULE.replace(old, new))
    sys.modules.pop(module.stem)


def refusal(capsys):
    assert run("predict", "run", "new.txt") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_they_are_read_by_its_plugin_with_the_options_of_the_run(words):
    assert run("predict", "run", "new.txt", "--csv", "out.csv") == 0
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["example"], row["predicted"]) for row in rows] == [("aaaa", "a"), ("ccbb", "b")]
    examples, _ = load("run").read_new("new.txt")
    assert examples[:, :, 0, 0].tolist() == [[12, 0, 0], [0, 6, 6]]


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        ("return None", "returned NoneType, not a pair"),
        (
            "return list(texts), texts",
            "of type list; they must be uint8, float32 or float64 of shape (N, 3, 1, 1)",
        ),
        ("return vectors(config, texts)[:, :2, 0], texts", "returned examples of float32, shape (2, 2, 1)"),
        ("return vectors(config, texts).astype(np.float16), texts", "returned examples of float16"),
        ("return vectors(config, texts), texts[1:]", "must return a name for each of the 2 examples"),
        ("return {}[path.suffix]", "KeyError: '.txt' (words_data.py, line 29)"),
    ],
)
def test_a_mistake_of_the_reader_names_its_plugin(words, new, problem, capsys):
    change(words, "return vectors(config, texts), texts", new)
    line = refusal(capsys)
    assert line.startswith("Error: data 'words': read_new")
    assert problem in line


def test_another_number_of_features_is_told_as_the_users_mistake(words, capsys):
    change(words, "return vectors(config, texts), texts", "return vectors(config, texts)[:, :2], texts")
    assert refusal(capsys) == "Error: new.txt: has 2 features, but the run was trained on 3"


def test_a_network_takes_no_inputs_that_are_made_by_something_else(words, capsys):
    change(words, "vectors(config, texts), texts\n", 'vectors(config, texts), texts, "counts of 2026"\n')
    made_by = (
        "run: its network takes inputs made by the examples as they are, and now they would be made by counts of 2026"
    )
    assert refusal(capsys) == f"Error: {made_by}: bring back what has changed, or train anew"
    change(words, "std=(2.0,) * 3", 'std=(2.0,) * 3, representation="counts of 2026"')
    assert run("eval", "run") == 2
    assert made_by in capsys.readouterr().err
    change(words, "vectors(config, texts), texts\n", "vectors(config, texts), texts, 2026\n")
    assert "read_new returned int as its representation, which must be a text or None" in refusal(capsys)


def test_without_its_plugin_the_missing_one_is_named_and_the_network_loads(words, capsys):
    shutil.rmtree(words.parent)
    assert "run: new examples are read by the plugin of its dataset: no data is called 'words'" in refusal(capsys)
    assert load("run").classes == ("a", "b")


def test_a_plugin_that_reads_no_longer_is_told(words, capsys):
    change(words, ", read_new=read_new", "")
    assert "data 'words' reads no new examples any more" in refusal(capsys)


def test_without_the_options_of_the_run_nothing_is_guessed(words, capsys):
    config = Path("run/config.json")
    config.write_text(json.dumps({"format": json.loads(config.read_text())["format"]}))
    assert "its options cannot be read (config.json: 'options')" in refusal(capsys)


def test_a_path_that_is_not_there_is_told_before_the_plugin_is_asked(words):
    with pytest.raises(UserError, match=r"^missing\.txt: no such file or folder$"):
        load("run").read_new("missing.txt")


def test_what_it_reads_is_normalised_like_the_training_set(words):
    classifier = load("run")
    examples, _ = classifier.read_new("new.txt")
    normalised = (examples - 1) / 2
    assert np.allclose(classifier(examples).detach(), classifier.network(normalised).detach())
