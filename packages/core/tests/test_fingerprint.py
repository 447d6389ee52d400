"""The same seed gives the same data, and the fingerprint tells other data."""

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.prepare import Plan, prepare

SEEDS = st.integers(0, 2**32 - 2)


def make_split(sizes):
    """Examples without names, which would tell by themselves which were drawn."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Split(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)


def make_dataset(meta=None):
    train, held_out = make_split((40, 40, 40)), None if meta is None else make_split(meta)
    return Dataset(train, train, ("a", "b", "c"), (0.0,), (1.0,), meta=held_out)


def random_class(labels, num_classes, rng):
    return rng.randint(num_classes, size=len(labels))


@settings(max_examples=30)
@given(
    meta=st.sampled_from([0, 6, 7]),
    val=st.sampled_from([0, 6]),
    imb=st.sampled_from([None, 0.3]),
    seed=SEEDS,
)
def test_same_options_give_the_same_data(meta, val, imb, seed):
    first, second = (prepare(make_dataset(), Plan(meta_size=meta, val_size=val, imb=imb, seed=seed)) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert (first.ids == second.ids).all()
    assert (first.train.labels == second.train.labels).all()


def test_global_random_state_plays_no_part():
    np.random.seed(1)
    first = prepare(make_dataset(), Plan(meta_size=9)).fingerprint
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    assert prepare(make_dataset(), Plan(meta_size=9)).fingerprint == first
    np.random.seed(1)
    assert (np.random.get_state()[1] == state).all()


def test_each_option_changes_the_fingerprint():
    changes = [
        {},
        {"seed": 1},
        {"meta_size": 10},
        {"meta_size": 0},
        {"val_size": 3},
        {"imb": 0.5},
        {"imb": 0.2},
    ]
    prints = {prepare(make_dataset(), Plan(**({"meta_size": 9} | change))).fingerprint for change in changes}
    assert len(prints) == len(changes)


def test_clean_sets_are_part_of_the_fingerprint_even_if_training_is_the_same():
    as_meta, as_val = (prepare(make_dataset(), Plan(**{name: 9})) for name in ("meta_size", "val_size"))
    assert (as_meta.ids == as_val.ids).all()
    assert as_meta.fingerprint != as_val.fingerprint
    own = [prepare(make_dataset(meta=(7, 5, 6)), Plan(meta_size=size)) for size in (None, 0, 6, 9)]
    assert len({data.fingerprint for data in own}) == 4


def test_labels_of_the_own_meta_set_are_part_of_the_fingerprint():
    dataset = make_dataset(meta=(7, 5, 6))
    labels = dataset.meta.labels.copy()
    labels[0] = 1
    changed = attrs.evolve(dataset, meta=attrs.evolve(dataset.meta, labels=labels))
    first, second = (prepare(each, Plan()) for each in (dataset, changed))
    assert (first.ids == second.ids).all() and (first.train.labels == second.train.labels).all()
    assert first.fingerprint != second.fingerprint


def test_names_are_part_of_the_fingerprint():
    dataset = make_dataset()
    prints = set()
    for names in (None, ("x",) * 120, ("x",) * 119 + ("y",)):
        prints.add(prepare(attrs.evolve(dataset, train=attrs.evolve(dataset.train, names=names)), Plan()).fingerprint)
    assert len(prints) == 3


@settings(max_examples=30)
@given(position=st.integers(0, 119), shift=st.integers(1, 2))
def test_one_changed_label_changes_the_fingerprint(position, shift):
    def one_moves(labels, num_classes, rng):
        labels = labels.copy()
        labels[position] = (labels[position] + shift) % num_classes
        return labels

    clean = prepare(make_dataset(), Plan()).fingerprint
    assert prepare(make_dataset(), Plan(corrupt=one_moves)).fingerprint != clean


def test_seed_changes_the_meta_set_and_the_noise():
    first, second = (prepare(make_dataset(), Plan(seed=seed, corrupt=random_class)) for seed in (0, 1))
    assert (first.train.labels != second.train.labels).any()
    first, second = (prepare(make_dataset(), Plan(seed=seed, meta_size=9)) for seed in (0, 1))
    assert set(first.ids) != set(second.ids)


def test_noise_is_independent_of_the_draws_for_the_splits():
    drawn = np.random.RandomState([4, 1]).randint(3, size=111)
    assert (prepare(make_dataset(), Plan(seed=4, meta_size=9, corrupt=random_class)).train.labels == drawn).all()
