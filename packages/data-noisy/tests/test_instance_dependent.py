import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import kstest, truncnorm
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from reweight_core import DataConfig, UserError, configure, load_data
from reweight_data_noisy import instance_dependent
from reweight_data_noisy.instance_dependent import TAUGHT, inputs, instance, model, parse, transition_rows

CLASSES = 4


def flip_rates(rate):
    """The distribution of q: normal around the rate, deviation 0.1, cut to [0, 1]."""
    return truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)


def bits(count, seed=0):
    """Images of few dark pixels, so that no class has all of a softmax."""
    return np.random.RandomState(seed).randint(0, 2, (count, 1, 2, 2)).astype(np.uint8)


class TestInstance:
    def test_rows_are_those_of_a_loop_over_the_examples(self):
        images, labels = bits(60), np.arange(60) % CLASSES
        rows = transition_rows(labels, CLASSES, np.random.RandomState(3), images, 0.4)

        rng = np.random.RandomState(3)
        q = rng.normal(0.4, 0.1, 60)
        assert ((q > 0) & (q < 1)).all()
        W = [rng.standard_normal((4, CLASSES)) for _ in range(CLASSES)]
        for i, (image, y) in enumerate(zip(images, labels, strict=True)):
            p = image.flatten().astype(float) @ W[y]
            p[y] = -math.inf
            p = q[i] * softmax(p)
            p[y] = 1 - q[i]
            assert rows[i] == pytest.approx(p, abs=1e-12)

    @pytest.mark.parametrize("rate", [0.05, 0.4, 0.97])
    def test_the_true_class_is_missed_with_the_published_distribution(self, rate):
        images, labels = bits(5000), np.arange(5000) % CLASSES
        rows = transition_rows(labels, CLASSES, np.random.RandomState(0), images, rate)
        q = 1 - rows[np.arange(5000), labels]
        assert kstest(q, flip_rates(rate).cdf).pvalue > 0.01
        assert rows.sum(1) == pytest.approx(np.ones(5000))

    @pytest.mark.parametrize("rate", [0.1, 0.4, 0.7])
    def test_the_share_of_wrong_labels_is_the_mean_flip_rate(self, rate):
        images, labels = bits(20_000), np.arange(20_000) % CLASSES
        noisy = instance(labels, CLASSES, np.random.RandomState(1), images, rate=rate)
        assert np.mean(noisy != labels) == pytest.approx(flip_rates(rate).mean(), abs=5 * 0.5 / np.sqrt(20_000))

    def test_equal_examples_go_to_the_same_classes_and_others_do_not(self):
        # one bright pixel each
        images = (255 * np.eye(50, dtype=np.uint8)).reshape(50, 1, 5, 10)
        labels = np.repeat([0, 0, 1], 50)
        rows = transition_rows(labels, 10, np.random.RandomState(0), np.tile(images, (3, 1, 1, 1)), 0.4)
        rows[np.arange(150), labels] = 0
        first, again, of_other_class = np.split(rows / rows.sum(1, keepdims=True), 3)
        assert first == pytest.approx(again)
        assert len(set(first.argmax(1))) == 9
        assert np.mean(first.argmax(1) != of_other_class.argmax(1)) > 0.5

    def test_a_black_image_says_nothing(self):
        images = np.zeros((1, 1, 8, 8), np.uint8)
        rows = transition_rows(np.array([2]), 4, np.random.RandomState(0), images, 0.4)
        assert rows[0, [0, 1, 3]] == pytest.approx((1 - rows[0, 2]) / 3)

    def test_a_large_projection_overflows_nowhere(self):
        images = np.full((20, 3, 32, 32), 255, np.uint8)
        rows = transition_rows(np.arange(20) % 2, 2, np.random.RandomState(0), images, 0.4)
        assert rows.sum(1) == pytest.approx(np.ones(20))


@pytest.fixture(scope="module")
def digits():
    source = load_digits()
    return source.images[:600].astype(np.uint8)[:, None], source.target[:600].astype(np.int64)


@pytest.fixture(scope="module")
def weak(digits):
    """What a logistic regression says that was fitted in another way: probabilities, and what it learned from."""
    images, labels = digits
    rng = np.random.RandomState(5)
    taught = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:TAUGHT] for c in range(10)])
    x = images.reshape(600, -1).astype(float)
    std = x[taught].std(0)
    x = (x - x[taught].mean(0)) / np.where(std > 0, std, 1)
    fitted = LogisticRegression(C=0.01, solver="lbfgs", tol=1e-9, max_iter=5000).fit(x[taught], labels[taught])
    return fitted.predict_proba(x), taught


class TestModel:
    @pytest.mark.parametrize("rate", [0, 0.05, 0.3, 0.5, 0.999, 1])
    def test_exactly_the_share_is_wrong(self, digits, rate):
        images, labels = digits
        noisy = model(labels, 10, np.random.RandomState(5), images, rate=rate)
        assert (noisy != labels).sum() == int(rate * 600)

    @pytest.mark.parametrize("rate", [0.05, 0.4, 0.8])
    def test_the_least_certain_take_the_most_probable_wrong_class(self, digits, weak, rate):
        (images, labels), (p, taught) = digits, weak
        noisy = model(labels, 10, np.random.RandomState(5), images, rate=rate)
        margins = {}
        for i in set(range(600)) - set(taught):
            wrong = max(set(range(10)) - {labels[i]}, key=lambda c: p[i, c])
            margins[i] = p[i, labels[i]] - p[i, wrong]
            assert noisy[i] in (labels[i], wrong)
        changed = set(np.flatnonzero(noisy != labels))
        assert changed == set(sorted(margins, key=margins.get)[: int(rate * 600)])

    def test_at_the_models_own_error_the_labels_are_its_predictions(self, digits, weak):
        (images, labels), (p, taught) = digits, weak
        predicted = p.argmax(1)
        predicted[taught] = labels[taught]
        errors = (predicted != labels).sum()
        assert 30 < errors < 150
        # half an example more than its errors, for what the division rounds
        noisy = model(labels, 10, np.random.RandomState(5), images, rate=(errors + 0.5) / 600)
        assert (noisy == predicted).all()

    def test_what_the_model_learned_from_is_changed_last(self, digits, weak):
        (images, labels), (_, taught) = digits, weak
        noisy = model(labels, 10, np.random.RandomState(5), images, rate=500.5 / 600)
        assert set(np.flatnonzero(noisy == labels)) == set(taught)

    def test_classes_of_few_examples_and_of_none_are_no_obstacle(self, digits):
        images, labels = digits
        few = np.concatenate([np.flatnonzero(labels == 0)[:3], np.flatnonzero(labels == 2)[:40]])
        noisy = model(labels[few], 5, np.random.RandomState(0), images[few], rate=0.2)
        assert (noisy != labels[few]).sum() == 8
        assert set(noisy) <= {0, 2}


@pytest.mark.parametrize("corrupt", [instance, model])
def test_the_labels_do_not_depend_on_how_many_images_are_looked_at_at_once(corrupt, monkeypatch):
    images = np.random.RandomState(0).randint(0, 256, (300, 3, 12, 12)).astype(np.uint8)
    labels = np.arange(300) % 3
    noisy = corrupt(labels, 3, np.random.RandomState(0), images, rate=0.5)
    monkeypatch.setattr(instance_dependent, "AT_ONCE", 7)
    assert (noisy == corrupt(labels, 3, np.random.RandomState(0), images, rate=0.5)).all()


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9))
def test_large_images_are_averaged_over_blocks(height, width, side):
    images = np.random.RandomState(0).randint(0, 256, (2, 2, height, width)).astype(np.uint8)
    found = inputs(images, side)

    def blocks(size):
        count = min(size, side)
        return [slice(i * size // count, (i + 1) * size // count) for i in range(count)]

    expected = [
        images[n, c, rows, columns].mean()
        for n in range(2)
        for c in range(2)
        for rows in blocks(height)
        for columns in blocks(width)
    ]
    assert found.dtype == np.float64
    assert found.shape[0] == 2
    assert found.ravel() == pytest.approx(np.array(expected))


class TestCrowd:
    def test_labels_follow_the_rows_of_their_own_examples(self, tmp_path):
        T = np.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.1, 0.1, 0.8]])
        mask = np.random.RandomState(1).random_sample(30_000) < 0.8
        kinds = np.random.RandomState(2).randint(3, size=30_000)
        # sums of 0.9995, as rounded shares have
        np.savetxt(tmp_path / "crowd.csv", 0.9995 * T[kinds], delimiter=",", fmt="%.6f")
        labels = np.zeros(mask.sum(), np.int64)
        noisy = parse("crowd", str(tmp_path / "crowd.csv"))(labels, 3, np.random.RandomState(0), mask)
        realised = np.zeros((3, 3))
        np.add.at(realised, (kinds[mask], noisy), 1)
        realised /= realised.sum(1, keepdims=True)
        assert np.abs(realised - T).max() < 0.03
        assert realised[0, 2] == realised[1, 0] == 0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0.5,0.5", r"has shape \(1, 2\), but the training set has 2 examples .* and 2 classes"),
            ("1,0,0\n0,1,0", r"has shape \(2, 3\)"),
            ("", r"has shape \(0,\)"),
            ("0.5,0.4\n0,1", r"row 1 must be a distribution .* it is 0\.9"),
            ("1,0\n1.5,-0.5", "row 2 must be a distribution"),
            ("1,0\nnan,1", "row 2 must be a distribution"),
            ("1,0\ninf,1", "row 2 must be a distribution"),
            ("cat,dog\n1,0\n0,1", "a line of numbers for each example of the training set"),
            ("1,0\n1", r"row 2 has another length than row 1 \(1, not 2\)"),
        ],
    )
    def test_a_file_that_holds_no_shares_is_refused(self, tmp_path, text, message):
        path = tmp_path / "crowd.csv"
        path.write_text(text)
        with pytest.raises(UserError, match=f"--noise crowd:{path}: .*{message}"):
            parse("crowd", str(path))(np.zeros(2, np.int64), 2, np.random.RandomState(0), np.ones(2, bool))

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="No such file"):
            parse("crowd", str(tmp_path / "none"))(np.zeros(2, np.int64), 2, np.random.RandomState(0), np.ones(2, bool))

    def test_rows_are_those_of_the_whole_training_set_whatever_is_taken_out_of_it(self, tmp_path):
        whole = load_data(configure(DataConfig, data="digits", meta_size=0)).dataset.train
        np.savetxt(tmp_path / "crowd.csv", np.eye(10)[(whole.labels + 1) % 10], delimiter=",", fmt="%g")
        options = {"meta_size": 100, "val_size": 50, "test_from": "split:0.2", "imb": 0.5}
        data = load_data(configure(DataConfig, data="digits", noise=f"crowd:{tmp_path / 'crowd.csv'}", **options))
        assert len(data.train) < len(whole) - 400
        assert (data.train.labels == (data.true_labels + 1) % 10).all()


@pytest.mark.parametrize("noise", ["instance:0.4", "model:0.4"])
def test_rows_of_features_are_looked_at_like_images(noise, tmp_path):
    rng = np.random.RandomState(0)
    with open(tmp_path / "train.csv", "w", newline="") as file:
        rows = ([f"kind {i % 3}", rng.normal(i % 3), 100 * rng.normal()] for i in range(600))
        csv.writer(file).writerows([["label", "size", "price"], *rows])
    options = {"data": "csv", "data_root": tmp_path, "test_from": "none", "noise": noise}
    data = load_data(configure(DataConfig, **options, meta_size=30))
    assert data.noise_rate == pytest.approx(0.4, abs=0.08)
    assert data.meta is not None
    assert (data.meta.labels == np.repeat([0, 1, 2], 10)).all()
    assert load_data(configure(DataConfig, **options, meta_size=30)).fingerprint == data.fingerprint
