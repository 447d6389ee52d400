import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.images import ImageFiles
from reweight_core.data.prepare import NoTestSetError, Plan, long_tail_counts, prepare
from reweight_core.errors import UserError
from reweight_core.testing import tiny_dataset

SEEDS = st.integers(0, 2**32 - 2)


def make_split(sizes, offset=0):
    """Examples of class 0, 1, ... in turn; each image holds its position, plus the offset, in two bytes."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    codes = np.arange(len(labels)) + offset
    images = np.stack([codes % 256, codes // 256], axis=1).astype(np.uint8).reshape(-1, 1, 1, 2)
    return Split(images, labels, tuple(f"image {code}" for code in codes))


def make_dataset(sizes=(40, 40, 40), meta=None, **fields):
    classes = tuple(f"class {c}" for c in range(len(sizes)))
    return Dataset(
        train=make_split(sizes),
        test=make_split([1] * len(sizes)),
        classes=classes,
        mean=(0.0,),
        std=(1.0,),
        meta=None if meta is None else make_split(meta, offset=10_000),
        **fields,
    )


NOISE = {}


def options(**values):
    return Plan(**NOISE | values)


def codes_of(split):
    images = split.images.astype(int)
    return images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1]


def next_class(labels, num_classes, rng):
    """Noise that moves every label to the next class."""
    return (labels + 1) % num_classes


def random_class(labels, num_classes, rng):
    return rng.randint(num_classes, size=len(labels))


def use_noise(monkeypatch, corrupt):
    monkeypatch.setitem(NOISE, "corrupt", corrupt)


def refusal(dataset, **values):
    with pytest.raises(UserError) as refused:
        prepare(dataset, options(**values))
    assert "\n" not in str(refused.value)
    return str(refused.value)


# Long tail


def test_long_tail_counts_of_gdw():
    assert long_tail_counts(4900, 10, 0.01) == [4900, 2937, 1760, 1055, 632, 379, 227, 136, 81, 49]


@pytest.mark.parametrize(
    ("largest", "classes", "imb", "total"),
    [
        (5000, 10, 0.1, 20431),
        (5000, 10, 0.02, 13996),
        (5000, 10, 0.01, 12406),
        (5000, 10, 0.005, 11203),
        (4990, 10, 0.01, 12380),
        (4900, 10, 0.1, 20021),
        (500, 100, 0.1, 19573),
        (500, 100, 0.02, 12608),
        (500, 100, 0.01, 10847),
        (500, 100, 0.005, 9502),
        (490, 100, 0.1, 19183),
        (490, 100, 0.01, 10626),
    ],
)
def test_long_tail_totals_of_the_papers(largest, classes, imb, total):
    assert sum(long_tail_counts(largest, classes, imb)) == total


def test_no_tail_at_imbalance_one():
    assert long_tail_counts(490, 100, 1.0) == [490] * 100


def test_long_tail_cuts_classes_after_the_meta_and_validation_sets_are_taken():
    data = prepare(make_dataset((100, 100, 100)), options(meta_size=30, val_size=15, imb=0.1))
    assert np.bincount(data.train.labels).tolist() == long_tail_counts(85, 3, 0.1)


def test_long_tail_of_unequal_classes_starts_from_the_smallest():
    data = prepare(make_dataset((30, 20, 50)), options(imb=0.5))
    assert np.bincount(data.train.labels).tolist() == [20, 14, 10]


def test_long_tail_goes_by_true_class_of_noisy_labels(monkeypatch):
    use_noise(monkeypatch, next_class)
    data = prepare(make_dataset(), options(imb=0.1))
    assert np.bincount(data.true_labels).tolist() == [40, 12, 4]
    assert (data.train.labels == (data.true_labels + 1) % 3).all()


def test_long_tail_keeps_the_labels_of_the_full_set(monkeypatch):
    use_noise(monkeypatch, random_class)
    full, tail = (prepare(make_dataset(), options(meta_size=6, **imb)) for imb in ({}, {"imb": 0.1}))
    labels = dict(zip(full.ids, full.train.labels, strict=True))
    assert set(tail.ids) < set(full.ids)
    assert [labels[i] for i in tail.ids] == tail.train.labels.tolist()


def test_empty_smallest_class_is_refused():
    assert refusal(make_dataset(), imb=0.01) == (
        "--imb 0.01: the smallest class would keep int(40 * 0.01) = 0 examples; give a larger value"
    )


# Splits


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(12, 40), min_size=2, max_size=5),
    meta=st.integers(0, 4),
    val=st.integers(0, 4),
    extra=st.integers(0, 1),
    imb=st.sampled_from([None, 0.5, 1.0]),
    seed=SEEDS,
)
def test_splits_are_disjoint_balanced_clean_and_aligned(sizes, meta, val, extra, imb, seed):
    classes = len(sizes)
    dataset = make_dataset(sizes)
    meta_size = meta * classes + extra * (meta > 0)
    data = prepare(dataset, options(meta_size=meta_size, val_size=val * classes, imb=imb, seed=seed))
    parts = [data.train] + [part for part in (data.meta, data.val) if part is not None]
    seen = np.concatenate([codes_of(part) for part in parts])
    assert len(set(seen)) == len(seen)
    if imb is None:
        assert len(seen) == sum(sizes)
    for part in parts:
        assert (part.labels == dataset.train.labels[codes_of(part)]).all()
        assert part.names == tuple(f"image {code}" for code in codes_of(part))
    if meta:
        shares = [meta + extra * (c == 0) for c in range(classes)]
        assert np.bincount(data.meta.labels, minlength=classes).tolist() == shares
    else:
        assert data.meta is None
    if val:
        assert np.bincount(data.val.labels, minlength=classes).tolist() == [val] * classes
    else:
        assert data.val is None
    assert (codes_of(data.train) == data.ids).all()
    assert (np.diff(data.ids) > 0).all()
    assert (data.true_labels == data.train.labels).all()


def test_nothing_asked_for_leaves_the_training_set_as_it_is():
    dataset = make_dataset()
    data = prepare(dataset, options())
    assert (data.train.images == dataset.train.images).all()
    assert (data.train.labels == dataset.train.labels).all()
    assert (data.meta, data.val) == (None, None)


@pytest.mark.parametrize("what", ["meta", "val"])
def test_remainder_goes_to_the_first_classes(what):
    data = prepare(make_dataset(), options(**{f"{what}_size": 8}))
    assert np.bincount(getattr(data, what).labels).tolist() == [3, 3, 2]


def test_validation_set_does_not_change_the_meta_set():
    alone, both = (prepare(make_dataset(), options(meta_size=9, val_size=val)) for val in (0, 9))
    assert (codes_of(alone.meta) == codes_of(both.meta)).all()


@pytest.mark.parametrize(("flag", "what"), [("--meta-size", "meta"), ("--val-size", "validation")])
def test_sizes_that_cannot_be_balanced_are_refused(flag, what):
    name = flag[2:].replace("-", "_")
    assert refusal(make_dataset(), **{name: 2}) == (
        f"{flag} 2: a balanced {what} set needs at least one of each of the 3 classes"
    )
    assert refusal(make_dataset(), **{name: 121}) == (
        f"{flag} 121: there are only 120 examples to take the {what} set from"
    )
    assert refusal(make_dataset((40, 5, 40)), **{name: 30}).startswith(
        f"{flag} 30: takes 10 of class 'class 1', which has only 5 examples"
    )


@pytest.mark.parametrize("option", ["meta_size", "val_size"])
def test_every_class_keeps_an_example_for_training(option):
    assert len(prepare(make_dataset(), options(**{option: 117})).train) == 3
    assert "takes 40 of class 'class 0'" in refusal(make_dataset(), **{option: 120})


# A meta set of the dataset's own


def test_own_meta_set_is_used_whole_unless_a_size_is_given():
    data = prepare(make_dataset(meta=(7, 5, 6)), options())
    assert codes_of(data.meta).tolist() == list(range(10_000, 10_018))
    assert len(data.train) == 120


def test_own_meta_set_gives_a_balanced_part_of_the_size_asked_for():
    dataset = make_dataset(meta=(7, 5, 6))
    data = prepare(dataset, options(meta_size=15, val_size=3))
    assert np.bincount(data.meta.labels).tolist() == [5, 5, 5]
    assert (codes_of(data.meta) >= 10_000).all()
    assert (data.meta.labels == dataset.meta.labels[codes_of(data.meta) - 10_000]).all()
    assert len(data.train) == 117
    assert (codes_of(data.val) < 10_000).all()


def test_own_meta_set_can_be_left_out():
    assert prepare(make_dataset(meta=(7, 5, 6)), options(meta_size=0)).meta is None


def test_own_meta_set_that_is_too_small_is_refused():
    assert refusal(make_dataset(meta=(7, 5, 6)), meta_size=19).startswith("--meta-size 19: there are only 18")
    assert refusal(make_dataset(meta=(7, 5, 6)), meta_size=18).startswith(
        "--meta-size 18: takes 6 of class 'class 1', which has only 5 examples"
    )


# Label noise


def test_noise_reaches_the_training_labels_only(monkeypatch):
    use_noise(monkeypatch, next_class)
    dataset = make_dataset()
    data = prepare(dataset, options(meta_size=9, val_size=9))
    true = dataset.train.labels
    assert (data.train.labels == (true[data.ids] + 1) % 3).all()
    assert (data.true_labels == true[data.ids]).all()
    assert (data.meta.labels == true[codes_of(data.meta)]).all()
    assert (data.val.labels == true[codes_of(data.val)]).all()
    assert (true == make_dataset().train.labels).all()


def test_noise_sees_the_remaining_labels_in_the_order_of_the_dataset(monkeypatch):
    seen = []

    def watch(labels, num_classes, rng):
        seen.append((labels.copy(), num_classes))
        return labels

    use_noise(monkeypatch, watch)
    data = prepare(make_dataset((40, 30, 20)), options(meta_size=9, val_size=6, imb=0.2))
    (labels, num_classes) = seen[0]
    assert len(seen) == 1
    assert num_classes == 3
    assert labels.tolist() == [0] * 35 + [1] * 25 + [2] * 15
    assert len(data.train) < 75


def test_noise_that_needs_the_images_sees_those_of_its_labels():
    def by_image(labels, num_classes, rng, images):
        return (images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1].astype(np.int64)) % num_classes

    data = prepare(make_dataset((40, 30, 20)), options(meta_size=9, corrupt=by_image, noise_needs_images=True))
    assert (data.train.labels == codes_of(data.train) % 3).all()


def test_noise_that_needs_the_mask_sees_which_examples_of_the_training_set_are_left():
    def by_place(labels, num_classes, rng, images, mask):
        assert mask.shape == (90,)
        assert (codes[mask] == images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1].astype(np.int64)).all()
        return np.flatnonzero(mask) % num_classes

    dataset = make_dataset((40, 30, 20))
    codes = codes_of(dataset.train)
    both = {"noise_needs_images": True, "noise_needs_mask": True}
    data = prepare(dataset, options(meta_size=9, val_size=6, imb=0.5, corrupt=by_place, **both))
    assert (data.train.labels == data.ids % 3).all()


def test_noise_that_needs_the_images_is_refused_where_they_are_read_while_training(tmp_path):
    files = ImageFiles(tmp_path, np.array([f"{i}.png" for i in range(6)], dtype=object), 8)
    split = Split(files, np.arange(6) % 3)
    dataset = Dataset(train=split, test=split, classes=("a", "b", "c"), mean=(0.0,) * 3, std=(1.0,) * 3)
    assert "looks at the images, which are read while training here" in refusal(
        dataset, corrupt=next_class, noise_needs_images=True
    )


def test_realised_noise_is_measured(monkeypatch):
    def first_ten_move(labels, num_classes, rng):
        return np.where(np.arange(len(labels)) < 10, 2, labels)

    use_noise(monkeypatch, first_ten_move)
    data = prepare(make_dataset(), options())
    assert data.noise_rate == pytest.approx(10 / 120)
    assert data.transition() == pytest.approx(np.array([[0.75, 0, 0.25], [0, 1, 0], [0, 0, 1]]))


def test_clean_labels_of_a_trusted_dataset_have_no_noise():
    data = prepare(make_dataset(), options())
    assert data.noise_rate == 0
    assert (data.transition() == np.eye(3)).all()


def test_true_labels_of_an_untrusted_dataset_are_unknown():
    data = prepare(make_dataset(trusted=False), options())
    assert (data.true_labels == -1).all()
    assert data.true_labels.dtype == np.int64
    assert (data.noise_rate, data.transition()) == (None, None)


def test_added_noise_makes_the_labels_of_an_untrusted_dataset_count_as_true(monkeypatch):
    use_noise(monkeypatch, next_class)
    assert prepare(make_dataset(trusted=False), options()).noise_rate == 1


# The test set


@pytest.mark.parametrize(
    ("sizes", "told"),
    [((5, 0, 5), "class 'class 1':"), ((0, 5, 0), "class 'class 0' and of 1 more:"), ((5, 1, 1), None)],
)
@pytest.mark.parametrize("test", ["own", "none"])
def test_classes_that_are_not_tested_are_told_where_there_is_a_test(sizes, told, test, recwarn):
    dataset = attrs.evolve(make_dataset(), test=make_split(sizes))
    data = prepare(dataset, options(test=test))
    assert (data.test is dataset.test) == (test == "own")
    expected = [f"the test set has no example of {told} its figures are of the other classes"] if told else []
    assert [str(w.message) for w in recwarn] == (expected if test == "own" else [])


def test_a_dataset_without_a_test_set_must_be_told_where_to_take_one_from():
    dataset = attrs.evolve(make_dataset(), test=None)
    with pytest.raises(NoTestSetError, match=r"--test-from split:0\.1 .* or --test-from none"):
        prepare(dataset, Plan())
    assert prepare(dataset, Plan(test="none")).test is None
    assert len(prepare(dataset, Plan(test=0.1)).test) == 3 * 4


@pytest.mark.parametrize(("test", "size"), [("own", 3), ("none", None), (0.25, 30)])
def test_a_dataset_with_a_test_set_has_it_used_only_where_the_plan_says_so(test, size):
    data = prepare(make_dataset(), Plan(test=test))
    assert (None if data.test is None else len(data.test)) == size
    assert len(data.train) == 120 - (size if test == 0.25 else 0)


# A random meta set


def test_a_random_meta_set_is_a_plain_draw_from_what_is_there():
    dataset = tiny_dataset(classes=4, per_class=50)
    dataset = attrs.evolve(dataset, meta=None)
    drawn = []
    for seed in range(30):
        data = prepare(dataset, Plan(meta_size=20, meta_draw="random", seed=seed))
        assert len(data.meta) == 20
        assert len(data.train) == 180
        images = {data.train.images[i].tobytes() for i in range(180)}
        assert not images & {data.meta.images[i].tobytes() for i in range(20)}
        drawn.append(np.bincount(data.meta.labels, minlength=4))
    # class counts of a draw without replacement: mean 5, and not always 5
    assert np.mean(drawn, axis=0) == pytest.approx(np.full(4, 5), abs=1.2)
    assert np.std(drawn) > 1


@pytest.mark.parametrize(("size", "message"), [(45, "there are only 44 examples"), (44, "leaves no example of class")])
def test_a_random_meta_set_that_is_too_large_is_refused(size, message):
    dataset = attrs.evolve(tiny_dataset(), meta=None)
    with pytest.raises(UserError, match=message):
        prepare(dataset, Plan(meta_size=size, meta_draw="random"))


def flip_half(labels, num_classes, rng):
    """Noise that moves about half of the labels to the next class."""
    return np.where(rng.random_sample(len(labels)) < 0.5, (labels + 1) % num_classes, labels)


@pytest.mark.parametrize("imb", [None, 0.2])
def test_an_observed_validation_set_has_the_noise_of_the_training_set(monkeypatch, imb):
    use_noise(monkeypatch, flip_half)
    dataset = make_dataset((200, 200, 200))
    data = prepare(dataset, options(meta_size=9, val_size=90, val_labels="observed", imb=imb))
    assert np.bincount(data.val.labels).tolist() == [30, 30, 30]
    wrong = data.val.labels != dataset.train.labels[codes_of(data.val)]
    # half, within four standard deviations
    assert abs(wrong.mean() - 0.5) < 4 * 0.5 / np.sqrt(90)
    taken = [set(codes_of(part)) for part in (data.train, data.meta, data.val)]
    assert sum(map(len, taken)) == len(set.union(*taken))
    if imb is None:
        assert sum(map(len, taken)) == 600
    # the meta set stays clean
    assert (data.meta.labels == dataset.train.labels[codes_of(data.meta)]).all()


def test_an_observed_validation_set_of_given_labels_has_these():
    true = np.repeat(np.arange(3), 40)
    given = np.roll(true, 20)
    data = prepare(make_dataset(observed=given), options(val_size=9, val_labels="observed"))
    assert (data.val.labels == given[codes_of(data.val)]).all()
    assert (data.train.labels == given[codes_of(data.train)]).all()


def test_the_fingerprint_covers_observed_validation_labels(monkeypatch):
    def noise_of(examples):
        """Noise that moves the labels of some examples, by position, to the next class."""

        def corrupt(labels, num_classes, rng):
            moved = labels.copy()
            moved[examples] = (moved[examples] + 1) % num_classes
            return moved

        return corrupt

    def prepared(corrupt):
        use_noise(monkeypatch, corrupt)
        return prepare(make_dataset(), options(val_size=9, val_labels="observed"))

    # the same examples are drawn as long as each class keeps its number and order
    monkeypatch.setattr(
        "reweight_core.data.prepare._shuffled_by_class",
        lambda labels, classes, rng: [np.arange(40 * c, 40 * c + 40) for c in range(classes)],
    )
    plain, changed = prepared(noise_of([])), prepared(noise_of([0]))
    assert (codes_of(plain.val) == codes_of(changed.val)).all()
    assert (plain.train.labels == changed.train.labels).all()
    assert plain.fingerprint != changed.fingerprint


FOLDS = [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_folds_of_the_meta_set_are_its_parts_and_leave_the_training_set(monkeypatch):
    use_noise(monkeypatch, flip_half)
    whole = prepare(make_dataset(), options(meta_size=14))
    parts = [prepare(make_dataset(), options(meta_size=14, val_fold=fold)) for fold in FOLDS]
    assert sorted(code for data in parts for code in codes_of(data.val)) == sorted(codes_of(whole.meta))
    assert sorted(len(data.val) for data in parts) == [3, 3, 4, 4]
    for data in parts:
        assert sorted([*codes_of(data.val), *codes_of(data.meta)]) == sorted(codes_of(whole.meta))
        assert (data.val.labels == make_dataset().train.labels[codes_of(data.val)]).all()
        # 5, 5 and 4 of each class: one or two of each in every part
        assert set(np.bincount(data.val.labels)) <= {1, 2}
        assert (data.ids == whole.ids).all() and (data.train.labels == whole.train.labels).all()
    assert len({data.fingerprint for data in [whole, *parts]}) == 5


def test_a_fold_of_a_meta_set_of_its_own():
    whole = prepare(tiny_dataset(), Plan())
    parts = [prepare(tiny_dataset(), Plan(val_fold=(number, 2))) for number in (1, 2)]
    images = [image.tobytes() for data in parts for image in data.val.images]
    assert sorted(images) == sorted(image.tobytes() for image in whole.meta.images)


def test_without_a_meta_set_folds_are_of_the_training_set_with_observed_labels(monkeypatch):
    use_noise(monkeypatch, flip_half)
    whole = prepare(make_dataset(), options(meta_size=0))
    parts = [prepare(make_dataset(), options(meta_size=0, val_fold=fold)) for fold in FOLDS]
    assert sorted(code for data in parts for code in codes_of(data.val)) == codes_of(whole.train).tolist()
    observed = dict(zip(codes_of(whole.train), whole.train.labels, strict=True))
    for data in parts:
        assert [observed[code] for code in codes_of(data.val)] == data.val.labels.tolist()
        assert not set(codes_of(data.val)) & set(codes_of(data.train))
        assert len(data.true_labels) == len(data.train) == len(data.ids) == 90
        assert np.ptp(np.bincount(data.val.labels) - np.bincount(whole.train.labels) / 4) < 2


def test_a_fold_that_takes_the_whole_of_a_class_is_refused():
    refused = 0
    for number in (1, 2, 3):
        try:
            prepare(make_dataset((30, 29, 1)), options(val_fold=(number, 3)))
        except UserError as error:
            assert str(error).startswith(f"--val-fold {number}/3: leaves no example of class 'class 2' for training")
            refused += 1
    assert refused == 1
    with pytest.raises(UserError, match=r"^--val-fold 1/1: leaves no example of class 'class 0' for training"):
        prepare(make_dataset(), options(val_fold=(1, 1)))


def test_the_fingerprint_covers_the_labels_of_a_fold_of_the_datasets_own_meta_set():
    dataset = make_dataset(meta=(2, 2, 2))
    changed = attrs.evolve(dataset, meta=attrs.evolve(dataset.meta, labels=(dataset.meta.labels + 1) % 3))
    first, second = (prepare(given, Plan(val_fold=(1, 1))).fingerprint for given in (dataset, changed))
    assert first != second


def test_more_folds_than_examples_are_refused():
    with pytest.raises(UserError, match=r"^--val-fold 1/4: there are only 3 examples to make 4 parts of"):
        prepare(make_dataset(), options(meta_size=3, val_fold=(1, 4)))


def test_where_labels_are_observed_says_nothing_without_a_validation_set():
    plain, observed = (prepare(make_dataset(), options(val_labels=kind)).fingerprint for kind in ("clean", "observed"))
    assert plain == observed
