import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_core import UserError, configure, train
from reweight_core.config.load_data import load_data as prepared
from reweight_core.runs.folder import read_config
from reweight_data_noisy.noise import SUPERCLASSES, draw, flip, flip2_matrix, flip_targets, parse, uniform

KINDS = [uniform, flip]

# the superclasses of CIFAR-100 and their classes, as on its authors' page (https://www.cs.toronto.edu/~kriz/cifar.html)
CIFAR100 = {
    "aquatic mammals": "beaver, dolphin, otter, seal, whale",
    "fish": "aquarium fish, flatfish, ray, shark, trout",
    "flowers": "orchid, poppy, rose, sunflower, tulip",
    "food containers": "bottle, bowl, can, cup, plate",
    "fruit and vegetables": "apple, mushroom, orange, pear, sweet pepper",
    "household electrical devices": "clock, keyboard, lamp, telephone, television",
    "household furniture": "bed, chair, couch, table, wardrobe",
    "insects": "bee, beetle, butterfly, caterpillar, cockroach",
    "large carnivores": "bear, leopard, lion, tiger, wolf",
    "large man-made outdoor things": "bridge, castle, house, road, skyscraper",
    "large natural outdoor scenes": "cloud, forest, mountain, plain, sea",
    "large omnivores and herbivores": "camel, cattle, chimpanzee, elephant, kangaroo",
    "medium-sized mammals": "fox, porcupine, possum, raccoon, skunk",
    "non-insect invertebrates": "crab, lobster, snail, spider, worm",
    "people": "baby, boy, girl, man, woman",
    "reptiles": "crocodile, dinosaur, lizard, snake, turtle",
    "small mammals": "hamster, mouse, rabbit, shrew, squirrel",
    "trees": "maple tree, oak tree, palm tree, pine tree, willow tree",
    "vehicles 1": "bicycle, bus, motorcycle, pickup truck, train",
    "vehicles 2": "lawn mower, rocket, streetcar, tank, tractor",
}
SUPERCLASS_OF = {name: kind for kind, names in CIFAR100.items() for name in names.split(", ")}
CLASSES = sorted(SUPERCLASS_OF)
"""In the order of their numbers, which is that of the alphabet."""


@st.composite
def labelled(draw):
    classes = draw(st.integers(2, 100))
    labels = draw(st.lists(st.integers(0, classes - 1), max_size=50))
    return np.array(labels, dtype=np.int64), classes, draw(st.integers(0, 2**32 - 1))


def test_flip_targets_of_ten_classes_are_those_of_gdw():
    assert flip_targets(10).tolist() == [6, 9, 6, 0, 0, 1, 8, 6, 2, 4]


@given(st.integers(2, 100))
def test_flip_targets_are_other_classes(classes):
    targets = flip_targets(classes)
    assert (targets != np.arange(classes)).all()
    assert ((targets >= 0) & (targets < classes)).all()


def test_flip_targets_leave_the_generator_and_the_global_state_alone():
    np.random.seed(3)
    expected = np.random.RandomState(3).random_sample()
    flip_targets(10)
    assert np.random.random_sample() == expected


@pytest.mark.parametrize("corrupt", KINDS)
@given(case=labelled())
def test_rate_zero_changes_nothing(corrupt, case):
    labels, classes, seed = case
    assert (corrupt(labels, classes, np.random.RandomState(seed), rate=0.0) == labels).all()


@given(labelled())
def test_flip_at_rate_one_turns_every_label_into_its_target(case):
    labels, classes, seed = case
    noisy = flip(labels, classes, np.random.RandomState(seed), rate=1.0)
    assert (noisy == flip_targets(classes)[labels]).all()
    assert (noisy != labels).all()


@pytest.mark.parametrize("corrupt", KINDS)
@given(case=labelled(), rate=st.floats(0, 1))
def test_result_is_new_valid_labels_and_depends_on_the_seed_only(corrupt, case, rate):
    labels, classes, seed = case
    before = labels.copy()
    noisy = corrupt(labels, classes, np.random.RandomState(seed), rate=rate)
    assert (labels == before).all()
    assert not np.shares_memory(noisy, labels)
    assert (noisy.dtype, noisy.shape) == (np.int64, labels.shape)
    assert ((noisy >= 0) & (noisy < classes)).all()
    assert (noisy == corrupt(labels, classes, np.random.RandomState(seed), rate=rate)).all()


@pytest.mark.parametrize("corrupt", KINDS)
def test_matches_a_loop_over_the_same_draws(corrupt):
    labels = np.arange(1000) % 7
    noisy = corrupt(labels, 7, np.random.RandomState(5), rate=0.3)
    rng = np.random.RandomState(5)
    chances = [rng.random_sample() for _ in labels]
    redrawn = rng.randint(7, size=1000, dtype=np.int64)
    for i, label in enumerate(labels):
        other = redrawn[i] if corrupt is uniform else flip_targets(7)[label]
        assert noisy[i] == (other if chances[i] < 0.3 else label)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("rate", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("corrupt", KINDS)
def test_realised_matrix_is_the_definition_within_binomial_error(corrupt, rate, classes):
    labels = np.repeat(np.arange(classes), 20_000)
    noisy = corrupt(labels, classes, np.random.RandomState(11), rate=rate)
    realised = np.zeros((classes, classes))
    np.add.at(realised, (labels, noisy), 1 / 20_000)
    if corrupt is uniform:
        expected = np.full((classes, classes), rate / classes) + (1 - rate) * np.eye(classes)
        wrong = rate * (classes - 1) / classes
    else:
        expected = (1 - rate) * np.eye(classes)
        expected[np.arange(classes), flip_targets(classes)] = rate
        wrong = rate
    assert (np.abs(realised - expected) <= 5 * np.sqrt(expected * (1 - expected) / 20_000) + 1e-12).all()
    assert np.mean(noisy != labels) == pytest.approx(wrong, abs=5 * np.sqrt(0.25 / len(labels)))


@pytest.mark.parametrize(("kind", "corrupt"), [("uniform", uniform), ("flip", flip)])
def test_argument_is_the_rate(kind, corrupt):
    labels = np.arange(100) % 10
    got = parse(kind, "0.4")(labels, 10, np.random.RandomState(0))
    assert (got == corrupt(labels, 10, np.random.RandomState(0), rate=0.4)).all()


@pytest.mark.parametrize("argument", ["1.5", "-0.1", "nan", "inf", "", "many", "0.4;0.2"])
@pytest.mark.parametrize(
    "kind",
    ["uniform", "uniform-exclusive", "l2rw-uniform", "flip", "flip2", "background", "asymmetric", "hierarchical"],
)
def test_rate_outside_zero_to_one_is_refused(kind, argument):
    with pytest.raises(UserError) as refused:
        parse(kind, argument)
    assert str(refused.value) == f"--noise {kind}:{argument}: the rate must be between 0 and 1"


def expected_matrix(kind, classes, rate):
    """The definitions, entry by entry."""
    T = np.zeros((classes, classes))
    for i in range(classes):
        for j in range(classes):
            if kind == "uniform-exclusive":
                T[i, j] = 1 - rate if i == j else rate / (classes - 1)
            elif kind == "l2rw-uniform":
                T[i, j] = (i == j) * (1 - rate) + (j < classes - 1) * rate / (classes - 1)
            elif kind == "background:3":
                T[i, j] = (i == j) * (1 - rate) + (j == 3) * rate
            elif kind == "hierarchical":
                T[i, j] = 1 - rate if i == j else rate / 4 * (SUPERCLASS_OF[CLASSES[i]] == SUPERCLASS_OF[CLASSES[j]])
            elif kind == "asymmetric":
                similar = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}.get(i)
                T[i, j] = float(i == j) if similar is None else (1 - rate) * (i == j) + rate * (j == similar)
            elif kind == "flip2":
                pairs = [(3, 9), (4, 8), (1, 8), (4, 8), (2, 5), (4, 7), (2, 9), (5, 8), (5, 6), (4, 5)]
                T[i, j] = 1 - rate if i == j else rate / 2 * (j in pairs[i])
    return T


@pytest.mark.parametrize("rate", [0.2, 0.4, 1.0])
@pytest.mark.parametrize(
    ("kind", "classes", "wrong"),
    [
        ("uniform-exclusive", 10, 1.0),
        ("uniform-exclusive", 2, 1.0),
        ("l2rw-uniform", 10, 0.9),
        ("background:3", 10, 0.9),
        ("flip2", 10, 1.0),
        ("asymmetric", 10, 0.5),
        ("hierarchical", 100, 1.0),
    ],
)
def test_realised_noise_is_the_definition(kind, classes, wrong, rate):
    each = 200_000 // classes
    labels = np.random.RandomState(1).permutation(np.repeat(np.arange(classes), each))
    name, _, target = kind.partition(":")
    noisy = parse(name, f"{rate}:{target}" if target else str(rate))(labels, classes, np.random.RandomState(11))
    assert noisy.dtype == np.int64
    realised = np.zeros((classes, classes))
    np.add.at(realised, (labels, noisy), 1 / each)
    expected = expected_matrix(kind, classes, rate)
    assert (np.abs(realised - expected) <= 5 * np.sqrt(expected * (1 - expected) / each) + 1e-9).all()
    assert np.mean(noisy != labels) == pytest.approx(wrong * rate, abs=0.006)


@pytest.mark.parametrize("kind", ["l2rw-uniform", "background"])
def test_l2rws_kinds_corrupt_an_exact_number(kind):
    # of a class that is drawn never (the last) every chosen label is visibly changed
    labels = np.full(1001, 9)
    noisy = parse(kind, "0.4")(labels, 10, np.random.RandomState(3))
    assert (noisy != labels).sum() == 400
    assert noisy[noisy != labels].max() < 9
    assert len(set(noisy[noisy != labels])) == (1 if kind == "background" else 9)


def test_superclasses_are_those_of_cifar100s_authors():
    assert len(CLASSES) == 100
    # both are numbered by the alphabet
    assert SUPERCLASSES.tolist() == [sorted(CIFAR100).index(SUPERCLASS_OF[name]) for name in CLASSES]


@given(st.integers(3, 60), st.floats(0, 1))
def test_a_matrix_of_two_targets_is_a_transition_matrix(classes, rate):
    T = flip2_matrix(classes, rate)
    assert T.sum(1) == pytest.approx(np.ones(classes))
    assert ((T > 0).sum(1) <= 3).all()


@pytest.mark.parametrize(
    ("kind", "classes", "message"),
    [
        ("flip2", 2, "at least 3 classes"),
        ("asymmetric", 5, "the 10 classes of CIFAR-10"),
        ("hierarchical", 10, "the 100 classes of CIFAR-100"),
    ],
)
def test_a_kind_that_the_data_cannot_have_is_refused(kind, classes, message):
    with pytest.raises(UserError, match=f"--noise {kind}: is defined for {message}, but the data have {classes}"):
        parse(kind, "0.4")(np.zeros(3, np.int64), classes, np.random.RandomState(0))


@pytest.mark.parametrize(
    ("argument", "message"),
    [("0.4:-1", "must be RATE or RATE:CLASS"), ("0.4:x", "must be RATE or RATE:CLASS"), ("0.4:10", "outside 0..9")],
)
def test_a_background_that_is_no_class_is_refused(argument, message):
    with pytest.raises(UserError, match=message):
        parse("background", argument)(np.zeros(3, np.int64), 10, np.random.RandomState(0))


@given(labelled())
def test_a_matrix_without_chance_is_followed_exactly(case):
    labels, classes, seed = case
    T = np.eye(classes)[flip_targets(classes)]
    assert (draw(labels, T, np.random.RandomState(seed)) == flip_targets(classes)[labels]).all()


@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_a_matrix_comes_from_a_file(tmp_path, separator):
    T = np.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.1, 0.1, 0.8]])
    path = tmp_path / "T.csv"
    path.write_text("\n".join(separator.join(map(str, row)) for row in T) + "\n")
    labels = np.repeat(np.arange(3), 50_000)
    noisy = parse("matrix", str(path))(labels, 3, np.random.RandomState(0))
    realised = np.zeros((3, 3))
    np.add.at(realised, (labels, noisy), 1 / 50_000)
    assert np.abs(realised - T).max() < 0.01
    assert realised[0, 2] == realised[1, 0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5 0.5", r"has shape \(1, 2\), but the data have 2 classes"),
        ("0.5 0.4\n0 1", "row 1 must be a distribution .* it is 0.9"),
        ("1 0\n1.5 -0.5", "row 2 must be a distribution"),
        ("1 0\nnan 1", "row 2 must be a distribution"),
        ("1 0\na b", "must be text, a line of numbers for each class"),
        ("1 0\n1", "must be text, a line of numbers for each class"),
    ],
)
def test_a_file_that_holds_no_transition_matrix_is_refused(tmp_path, text, message):
    path = tmp_path / "T.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=f"--noise matrix:{path}: .*{message}"):
        parse("matrix", str(path))(np.zeros(3, np.int64), 2, np.random.RandomState(0))


def test_a_missing_matrix_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        parse("matrix", str(tmp_path / "none"))(np.zeros(3, np.int64), 2, np.random.RandomState(0))


def test_a_run_with_a_matrix_can_be_repeated_from_another_folder(tmp_path, monkeypatch):
    np.savetxt(tmp_path / "T.txt", 0.6 * np.eye(10) + 0.04)
    monkeypatch.chdir(tmp_path)
    options = {"data": "digits", "meta_size": 0, "noise": "matrix:T.txt"}
    run = train(configure(**options, steps=1, out=tmp_path / "run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = prepared(read_config(run.folder).config)
    assert again.fingerprint == json.loads((run.folder / "config.json").read_text())["data"]["fingerprint"]
    assert again.noise_rate == pytest.approx(0.36, abs=0.05)
