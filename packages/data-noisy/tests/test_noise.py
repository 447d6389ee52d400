import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_core import UserError
from reweight_data_noisy.noise import flip, flip_targets, parse_flip, parse_uniform, uniform

KINDS = [uniform, flip]


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


@pytest.mark.parametrize(("parse", "corrupt"), [(parse_uniform, uniform), (parse_flip, flip)])
def test_argument_is_the_rate(parse, corrupt):
    labels = np.arange(100) % 10
    got = parse("0.4")(labels, 10, np.random.RandomState(0))
    assert (got == corrupt(labels, 10, np.random.RandomState(0), rate=0.4)).all()


@pytest.mark.parametrize("argument", ["1.5", "-0.1", "nan", "inf", "", "many", "0.4:0.2"])
@pytest.mark.parametrize(("parse", "kind"), [(parse_uniform, "uniform"), (parse_flip, "flip")])
def test_rate_outside_zero_to_one_is_refused(parse, kind, argument):
    with pytest.raises(UserError) as refused:
        parse(argument)
    assert str(refused.value) == f"--noise {kind}:{argument}: the rate must be between 0 and 1"
