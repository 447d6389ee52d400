"""A dataset says at once, and by the field's name, what a data plugin got wrong."""

from pathlib import Path

import attrs
import numpy as np
import pytest

from reweight_core import DataConfig, DataPlugin, Dataset, Features, ImageFiles, Split, UserError
from reweight_core.config.load_data import load_dataset
from reweight_core.plugins import registry

N = 120


def make_split(sizes=(40, 40, 40)):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Split(np.zeros((len(labels), 2, 1, 3), np.uint8), labels)


def make(**fields):
    split = make_split()
    return attrs.evolve(Dataset(split, split, ("a", "b", "c"), (0.0, 0.0), (1.0, 1.0), meta=split), **fields)


def refusal(**fields):
    with pytest.raises(UserError) as refused:
        make(**fields)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_two_classes_are_the_least():
    assert refusal(classes=("a",)) == "the data have 1 class: a classifier needs at least two"


@pytest.mark.parametrize("part", ["train", "test", "meta"])
def test_a_class_that_cannot_be_learned_is_refused(part):
    assert refusal(**{part: make_split((0, 0, 0))}).startswith("class 'a' has no example")
    if part != "test":
        message = f"class 'b' has no example in the {'training' if part == 'train' else part} set"
        assert refusal(**{part: make_split((5, 0, 5))}).startswith(message)


@pytest.mark.parametrize("part", ["train", "test", "meta"])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_refused(part, label):
    labels = make_split().labels.copy()
    labels[7] = label
    split = attrs.evolve(make_split(), labels=labels)
    assert refusal(**{part: split}) == f"the dataset's {part}.labels has the label {label}, outside 0..2"
    assert refusal(observed=labels) == f"the dataset's observed has the label {label}, outside 0..2"


IN_FILES = ImageFiles(Path("root"), np.array(["x.png"] * N, dtype=object), 3)


@pytest.mark.parametrize("part", ["train", "test", "meta"])
@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("images", None, "None"),
        ("images", [[[[0]]]], "[[[[0]]]]"),
        ("images", np.zeros((N, 2, 1, 3)), "ndarray of float64, shape (120, 2, 1, 3)"),
        ("images", np.zeros((N, 2), np.uint8), "ndarray of uint8, shape (120, 2)"),
        ("labels", None, "None"),
        ("labels", [0, 1, 2] * 40, "[0, 1, 2, 0, 1, 2, ...]"),
        ("labels", np.zeros(N, np.int32), "ndarray of int32, shape (120,)"),
        ("labels", np.zeros((N, 1), np.int64), "ndarray of int64, shape (120, 1)"),
        ("labels", np.zeros(N - 1, np.int64), "ndarray of int64, shape (119,)"),
        ("names", ("x",) * (N - 1), "('x', 'x', 'x', 'x', 'x', 'x', ...)"),
        ("names", tuple(range(N)), "(0, 1, 2, 3, 4, 5, ...)"),
        ("names", ["x"] * N, "['x', 'x', 'x', 'x', 'x', 'x', ...]"),
    ],
)
def test_a_wrong_field_of_a_split_is_named_with_what_was_found(part, field, value, found):
    message = refusal(**{part: attrs.evolve(make_split(), **{field: value})})
    assert message.startswith(f"the dataset's {part}.{field} must be ")
    assert message.endswith(f", not {found}: report it to the data plugin's author")


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("train", None, "a Split"),
        ("test", make_split().images, "a Split or None"),
        ("meta", (1, 2), "a Split or None"),
        (
            "test",
            attrs.evolve(make_split(), images=IN_FILES),
            "a numpy array or what stands for one, the same in all splits",
        ),
        ("meta", attrs.evolve(make_split(), images=np.zeros((N, 2, 3, 1), np.uint8)), "of shape (N, 2, 1, 3)"),
        ("classes", None, "a tuple of names"),
        ("classes", "abc", "a tuple of names"),
        ("classes", (1, 2, 3), "a tuple of names"),
        ("mean", None, "a tuple of 2 finite numbers, one for each channel"),
        ("mean", 0.5, "a tuple of 2 finite numbers"),
        ("mean", (0.5,), "a tuple of 2 finite numbers"),
        ("mean", (0.5, float("nan")), "a tuple of 2 finite numbers"),
        ("mean", (np.float32(0.5), 0.5), "a tuple of 2 finite numbers"),
        ("std", (1.0, 0.0), "a tuple of 2 positive numbers"),
        ("std", ("1", "1"), "a tuple of 2 positive numbers"),
        ("observed", make_split().labels.astype(float), "int64 of shape (120,)"),
        ("observed", make_split().labels[1:], "int64 of shape (120,)"),
        ("trusted", None, "True or False"),
        ("augment", None, "one of none, crop, flip, crop-flip, resized-crop"),
        ("augment", "rotate", "one of none, crop"),
        ("padding", None, "a number of pixels"),
        ("padding", -1, "a number of pixels"),
        ("features", ("x", "y"), "None or Features with 2 names"),
        ("features", Features(("x",), (0.0,), (1.0,)), "None or Features with 2 names"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_must_be(field, value, wanted):
    message = refusal(**{field: value})
    assert message.startswith(f"the dataset's {field}")
    assert f" must be {wanted}" in message and "author" in message


def test_what_is_right_is_taken():
    named = attrs.evolve(make_split(), names=("x",) * N)
    features = Features(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    dataset = make(train=named, test=None, meta=None, observed=named.labels[::-1].copy(), features=features)
    assert dataset.input_shape == (2, 1, 3)
    in_files = attrs.evolve(named, images=IN_FILES)
    assert make(train=in_files, test=in_files, meta=None, mean=(0.0,) * 3, std=(1,) * 3).input_shape == (3, 3, 3)


def test_a_plugin_that_gives_no_dataset_is_named(monkeypatch):
    plugin = DataPlugin("mine", "a list", build=lambda config: [])
    monkeypatch.setattr(registry, "find", lambda kind, name: plugin)
    with pytest.raises(UserError, match=r"^data 'mine': build returned list, not a Dataset: report it to the plugin's"):
        load_dataset(DataConfig(data="mine"))
