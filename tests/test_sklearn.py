"""ReweightClassifier with methods, data and commands of other packages."""

import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from reweight_core import ReweightClassifier

PAGE = Path(__file__).parents[1] / "docs" / "own-loop.md"


@pytest.fixture(scope="module")
def digits():
    """Training rows with 40 % of their labels wrong, clean rows, test rows; and which labels are wrong."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)
    order = rng.permutation(len(y))
    meta, train, test = np.split(order, [100, 900])
    noisy, wrong = y[train].copy(), rng.rand(len(train)) < 0.4
    noisy[wrong] = (noisy[wrong] + rng.randint(1, 10, wrong.sum())) % 10
    return {"train": (X[train], noisy), "meta": (X[meta], y[meta]), "test": (X[test], y[test]), "wrong": wrong}


def clean(digits):
    X, y = digits["meta"]
    return {"X_meta": X, "y_meta": y}


@pytest.mark.parametrize(("method", "names"), [("erm", "0123456789"), ("gdw", "jihgfedcba")])
def test_a_fit_is_the_run_of_the_same_table(method, names, digits, reweight, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table").mkdir()
    frames = {}
    for part in ("train", "meta"):
        X, y = digits[part]
        frames[part] = pd.DataFrame(X, columns=[f"pixel{i}" for i in range(64)]), np.array(list(names))[y]
        frame, labels = frames[part]
        frame.assign(label=labels).to_csv(tmp_path / "table" / f"{part}.csv", index=False)
    options = ["--data", "csv", "--data-root", "table", "--test-from", "none", "--steps", "40", "--device", "cpu"]
    assert reweight("train", "--method", method, *options, "--out", "run").status == 0
    (X, y), (X_meta, y_meta) = frames["train"], frames["meta"]
    fitted = ReweightClassifier(method, options={"steps": 40}, device="cpu").fit(X, y, X_meta=X_meta, y_meta=y_meta)
    (weights,) = (tmp_path / "run" / "checkpoints").glob("*40/model.safetensors")
    expected = load_file(weights)
    found = fitted.network_.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    # what it says of new rows is what the program says
    test = pd.DataFrame(digits["test"][0], columns=X.columns)
    test.to_csv("test.csv", index=False)
    assert reweight("predict", "run", "test.csv", "--csv", "out.csv").status == 0
    told = pd.read_csv("out.csv", dtype={"predicted": str})
    assert (told["predicted"] == fitted.predict(test)).all()
    columns = [f"p({name})" for name in fitted.classes_]
    np.testing.assert_allclose(told[columns], fitted.predict_proba(test), atol=2e-6)


def test_wrong_labels_weigh_less(digits):
    options = {"steps": 200}
    fitted = ReweightClassifier("l2rw", model="mlp", options=options).fit(*digits["train"], **clean(digits))
    assert roc_auc_score(~digits["wrong"], fitted.sample_weight_) > 0.85
    plain = ReweightClassifier(model="mlp", options={"steps": 200}).fit(*digits["train"])
    assert (plain.sample_weight_ == 1).all()
    assert fitted.score(*digits["test"]) > plain.score(*digits["test"]) + 0.05


def test_a_method_without_its_clean_examples_says_what_to_give(digits):
    with pytest.raises(ValueError, match=r"^method 'gdw' needs clean examples: give fit some as X_meta and y_meta, or"):
        ReweightClassifier("gdw").fit(*digits["train"])


@pytest.mark.parametrize("given", [{"with": ["fine-tune", "ema"]}, {"with": ["mixup"]}])
def test_what_components_make_of_a_network_can_be_kept(given, digits):
    fitted = ReweightClassifier(options={"steps": 3, **given}).fit(*digits["train"], **clean(digits))
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(digits["test"][0]) == fitted.predict_proba(digits["test"][0])).all()


def test_clean_examples_go_along_in_cross_validation(digits):
    X, y = digits["train"]
    estimator = ReweightClassifier("glc", options={"steps": 100})
    found = cross_val_predict(estimator, X, y, cv=2, params=clean(digits))
    right = ~digits["wrong"]
    assert np.mean(found[right] == y[right]) > 0.85


@pytest.mark.parametrize("has_clean", [True, False])
def test_auto_finds_a_method(has_clean, digits, monkeypatch):
    monkeypatch.setattr("reweight_fit.fitting.LEAST_PLAIN", 1e-3)
    options = {"candidates": ["gce"], "budget": "1x", "steps": 20}
    estimator = ReweightClassifier("auto", model="linear", options=options)
    fitted = estimator.fit(*digits["train"], **clean(digits) if has_clean else {})
    assert fitted.report_["by"] == ("trusted" if has_clean else "observed")
    assert fitted.options_["method"] in ("erm", "clean-only")
    # some clean examples are planted behind them
    assert (fitted.options_["plant"] > 0) is has_clean
    assert fitted.sample_weight_.shape == (800,)
    assert fitted.score(*digits["test"]) > 0.3


def test_page_of_scikit_learn_works(capsys):
    part = PAGE.read_text(encoding="utf-8").partition("\n## scikit-learn\n")[2] or PAGE.read_text(encoding="utf-8")
    part = part.partition("\n## ")[0]
    first, second = re.findall(r"```python\n(.*?)```", part, re.S)
    scope: dict[str, object] = {}
    with sklearn.config_context(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        exec(compile(first.replace('model="mlp"', 'model="mlp", epochs=5'), str(PAGE), "exec"), scope)
        exec(compile(second.replace('"glc"', '"glc", epochs=5'), str(PAGE), "exec"), scope)
    (accuracy, weight), (piped, shape) = (line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert float(accuracy) > 0.8
    assert float(weight) < 0.7
    assert float(piped) > 0.8
    assert shape == "(1247, 10)"
