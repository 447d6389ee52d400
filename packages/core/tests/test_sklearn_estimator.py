"""ReweightClassifier: scikit-learn's own checks, and what the trainer makes of arrays."""

import copy
import pickle
import tempfile
from unittest import SkipTest

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from reweight_core import ReweightClassifier, UserError, load

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data",
    # its name before scikit-learn 1.6
    "check_sample_weights_invariance",
}
"""Checks of scikit-learn that fail: a row of weight 2 is in one batch, and two rows are in two."""


def checks():
    estimator = ReweightClassifier(batch_size=50, lr=0.1, options={"steps": 30})
    if hasattr(estimator_checks, "estimator_checks_generator"):
        pairs = estimator_checks.estimator_checks_generator(estimator)
    else:
        # before scikit-learn 1.6
        pairs = estimator_checks.check_estimator(estimator, generate_only=True)
    return [
        pytest.param(estimator, check, id=f"{i}-{check.func.__name__}") for i, (estimator, check) in enumerate(pairs)
    ]


@pytest.mark.parametrize(("estimator", "check"), checks())
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(estimator, check):
    # weights of 1 change nothing
    if check.func.__name__ in EXPECTED and check.keywords.get("kind") != "ones":
        with pytest.raises(AssertionError):
            check(estimator)
        return
    try:
        check(estimator)
    except SkipTest as reason:
        # of libraries that are not installed
        assert "not checking" in str(reason) or "is not installed" in str(reason)


@pytest.fixture(scope="module")
def blobs():
    """Three classes, by names that are not in their order, well apart."""
    X, y = make_blobs(120, 4, centers=3, random_state=0, cluster_std=0.5)
    return X, np.array(["pear", "apple", "quince"])[y]


def quick(**given):
    return ReweightClassifier(**{"batch_size": 20, "lr": 0.1, "options": {"steps": 30}, **given})


def parameters(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.network_.parameters()])


def test_labels_of_text_come_back_in_the_order_of_the_probabilities(blobs):
    X, y = blobs
    fitted = quick().fit(X, y)
    assert list(fitted.classes_) == ["apple", "pear", "quince"]
    assert fitted.score(X, y) == 1
    assert (np.array(["apple", "pear", "quince"])[fitted.predict_proba(X).argmax(1)] == y).all()


def test_without_arguments_it_predicts_what_logistic_regression_does():
    X, y = load_breast_cancer(return_X_y=True)
    found = ReweightClassifier(options={"steps": 300}).fit(X[::2], y[::2]).predict_proba(X[1::2])
    expected = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[::2], y[::2]).predict_proba(X[1::2])
    assert np.abs(found - expected).mean() < 0.02


def test_a_fitted_estimator_says_what_it_did(blobs):
    fitted = quick().fit(*blobs)
    assert (fitted.options_["model"], fitted.options_["steps"], fitted.options_["method"]) == ("linear", 30, "erm")
    assert fitted.summary_["health"] == []
    assert fitted.report_ is None
    assert not {"out", "weights"} & set(fitted.options_)


def test_rows_that_were_not_trained_on_have_no_weight(blobs):
    X, y = blobs
    fitted = quick(options={"steps": 30, "val_size": 12}).fit(X, y)
    assert np.isnan(fitted.sample_weight_).sum() == 12
    assert (fitted.sample_weight_[~np.isnan(fitted.sample_weight_)] == 1).all()


def test_clean_examples_are_trained_on_where_that_is_asked(blobs):
    X, y = blobs
    wrong = np.roll(np.unique(y), 1)[np.searchsorted(np.unique(y), y)]
    both = quick(options={"steps": 100, "meta_use": "both"}).fit(X[:12], wrong[:12], X_meta=X[12:], y_meta=y[12:])
    assert both.score(X, y) > 0.8
    assert both.sample_weight_.shape == (12,)


def test_weights_count_by_their_ratio(blobs):
    X, y = blobs
    noisy, weights = y.copy(), np.ones(len(y))
    noisy[:60], weights[:60] = "pear", 1e-6
    small = quick().fit(X, noisy, sample_weight=weights)
    assert small.score(X, y) == 1
    assert quick().fit(X, noisy).score(X, y) < 0.9
    large = quick().fit(X, noisy, sample_weight=1024 * weights)
    assert torch.equal(parameters(large), parameters(small))
    # what the method made of the rows, without these
    assert (small.sample_weight_ == 1).all()


def test_the_seed_decides(blobs):
    first, second, other = (quick(random_state=seed).fit(*blobs) for seed in (1, np.int64(1), 2))
    assert torch.equal(parameters(first), parameters(second))
    assert not torch.equal(parameters(first), parameters(other))
    drawn = []
    for seed in (None, None, np.random.RandomState(7), np.random.RandomState(7)):
        drawn.append(parameters(quick(random_state=seed).fit(*blobs)))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[2], drawn[3])


def test_a_fitted_estimator_can_be_kept_and_copied(blobs):
    X, y = blobs
    fitted = quick(model="mlp").fit(X, y)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert (other.predict_proba(X) == fitted.predict_proba(X)).all()
        assert not {id(p) for p in other.network_.parameters()} & {id(p) for p in fitted.network_.parameters()}


def test_nothing_is_left_on_the_disk(blobs, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    X, y = blobs
    quick().fit(X, y, sample_weight=np.ones(len(y)))
    with pytest.raises(ValueError, match="resnet8"):
        quick(model="resnet8").fit(X, y)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["temporary"]


def test_a_run_that_is_kept_can_be_loaded(blobs, tmp_path):
    X, y = blobs
    fitted = quick(options={"steps": 30, "out": tmp_path / "run"}).fit(X, y)
    np.savetxt(tmp_path / "new.csv", X, delimiter=",", header="x0,x1,x2,x3", comments="")
    classifier = load(tmp_path / "run", device="cpu")
    with torch.no_grad():
        found = classifier(classifier.read_table(tmp_path / "new.csv")[0]).softmax(1)
    np.testing.assert_allclose(found, fitted.predict_proba(X), atol=1e-6)


def test_it_works_in_a_pipeline_a_grid_and_cross_validation(blobs):
    X, y = blobs
    pipeline = make_pipeline(StandardScaler(), quick())
    assert (cross_val_predict(pipeline, X, y, cv=3) == y).all()
    grid = GridSearchCV(pipeline, {"reweightclassifier__lr": [1e-7, 0.1]}, cv=2).fit(X, y)
    assert grid.best_params_ == {"reweightclassifier__lr": 0.1}


@pytest.fixture(scope="module")
def pictures():
    """Grey images (n, 6, 5) with a bright left or right half, and which."""
    rng = np.random.RandomState(0)
    y = np.arange(60) % 2
    X = rng.randint(0, 100, (60, 6, 5)).astype(np.uint8)
    X[y == 0, :, :2] += 150
    X[y == 1, :, 3:] += 150
    return X, y


def test_images_are_trained_on(pictures):
    X, y = pictures
    options = {"steps": 20, "augment": "none"}
    grey = quick(model="mlp", options=options).fit(X, y)
    assert grey.score(X, y) == 1
    assert grey.options_["memory_kind"] == "images"
    # its pixels are normalised as those of a folder of images
    assert grey._reader.mean == pytest.approx((X.mean(),))
    assert grey._reader.std == pytest.approx((X.std(),))
    one_channel = quick(model="mlp", options=options).fit(X[..., None], y)
    assert (one_channel.predict_proba(X[..., None]) == grey.predict_proba(X)).all()
    colour = quick(model="mlp", options=options).fit(np.stack([X, X // 2, 0 * X], 3), y)
    assert colour._reader.mean == pytest.approx((X.mean(), (X // 2).mean(), 0))
    assert colour._reader.std[2] == 1
    assert quick(options={"steps": 1}).fit(X, y).options_["model"] == "resnet8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X / 255, "X is of float64 and shape"),
        (lambda X: X[:, None, None], "X is of uint8 and shape"),
    ],
)
def test_other_arrays_are_refused(pictures, change, message):
    X, y = pictures
    with pytest.raises(ValueError, match=message):
        quick().fit(change(X), y)


def test_other_images_than_those_of_the_training_are_refused(pictures):
    X, y = pictures
    fitted = quick(model="mlp").fit(X, y)
    for other in (X[:, :, :4], X.astype(float), X[..., None], np.zeros((2, 6))):
        with pytest.raises(ValueError, match=r"but the training set of images had shape \(n, 6, 5\)"):
            fitted.predict(other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "^epochs must be > 0: 0$"),
        ({"method": "emr"}, "no method is called 'emr'.*erm"),
        ({"options": {"batchsize": 3}}, "no option is called 'batchsize'.*batch_size"),
        ({"options": {"epochs": 3}}, "options: 'epochs' is the parameter epochs"),
        ({"options": {"seed": 3}}, "options: 'seed' is random_state"),
        (
            {"options": {"plant": 3}},
            "^plant 3: there are no clean examples to plant: give fit some as X_meta and y_meta$",
        ),
        ({"model": "resnet8"}, "for images, but the data are features"),
        ({"device": "tpu"}, "^device tpu: unknown"),
    ],
)
def test_a_wrong_parameter_is_told_in_one_line(blobs, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        quick(**given).fit(*blobs)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X_meta": np.eye(4)[:3]}, "X_meta and y_meta belong together"),
        ({"y_meta": ["pear"]}, "X_meta and y_meta belong together"),
        ({"X_meta": np.eye(4), "y_meta": ["pear"]}, "X_meta has 4 rows, and y_meta 1 labels"),
        ({"X_meta": np.eye(4), "y_meta": list("abcd")}, "y_meta has the label 'a', which y has not"),
        ({"X_meta": np.eye(4), "y_meta": [1, 2, 3, 1]}, "y_meta holds numbers, y text"),
        ({"X_meta": np.eye(4), "y_meta": np.array(["pear", None] * 2)}, "y_meta has NaN"),
        ({"X_meta": np.eye(3), "y_meta": ["pear"] * 3}, "X_meta: X has 3 features.*transform_input"),
        ({"sample_weight": np.zeros(120)}, "weight"),
        ({"sample_weight": -np.ones(120)}, "sample_weight has negative weights"),
    ],
)
def test_wrong_data_are_told_in_one_line(blobs, given, message):
    with pytest.raises(ValueError, match=message):
        quick().fit(*blobs, **given)


@pytest.mark.parametrize(
    ("y_meta", "message"),
    [
        (["0", "1", "2", "0"], "^y_meta holds text, y numbers"),
        ([0, 1, np.nan, 2], "^y_meta has NaN"),
        ([0, 1, 2, 3], "^y_meta has the label '3', which y has not"),
    ],
)
def test_clean_labels_of_another_kind_than_numbers_are_told(blobs, y_meta, message):
    X, y = blobs
    with pytest.raises(ValueError, match=message):
        quick().fit(X, np.unique(y, return_inverse=True)[1], X_meta=X[:4], y_meta=y_meta)


def test_clean_examples_that_nobody_asks_for_are_left_alone(blobs):
    X, y = blobs
    clean = {"X_meta": X[y == "pear"], "y_meta": y[y == "pear"]}
    assert torch.equal(parameters(quick().fit(X, y, **clean)), parameters(quick().fit(X, y)))
    for options in ({"meta_use": "both"}, {"plant": 3}, {"val_fold": "1/3"}, {"meta_size": 3}):
        with pytest.raises(ValueError, match="class 'apple' has no example in the meta set"):
            quick(options={"steps": 30, **options}).fit(X, y, **clean)


def test_a_value_too_large_for_the_network_is_told(blobs):
    X, y = blobs
    fitted = quick().fit(X, y)
    with pytest.raises(ValueError, match=r"X, row 2: x1 1e\+200 is too large"):
        fitted.predict([[0, 0, 0, 0], [0, 1e200, 0, 0]])


def test_auto_asks_for_the_package_that_it_needs(blobs, monkeypatch):
    monkeypatch.setenv("REWEIGHT_PLUGINS", "")
    with pytest.raises(ValueError, match="needs the package reweight-fit"):
        quick(method="auto").fit(*blobs)


def test_a_run_that_diverges_warns_and_ends(blobs):
    X, _ = blobs
    options = {"optimizer": "sgd", "schedule": "constant", "steps": 40}
    with pytest.warns(UserWarning, match="diverged"):
        fitted = quick(lr=1000.0, options=options).fit(X, np.arange(len(X)) % 3)
    assert fitted.summary_["health"][0]["problem"] == "diverged"
