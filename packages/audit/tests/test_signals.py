"""Signals: what tells wrong labels from right ones, and which is best."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import precision_score, roc_auc_score

from reweight_audit.records import Signal
from reweight_audit.signals import MEANINGS, Known, against, figures, measured, other_class, signals_of
from reweight_core import Samples, UserError

N, CLASSES = 40, 3


def samples_of(wrong, weights=None, visits=None):
    """A run whose loss is high, and whose margin and weight are low, where labels are wrong."""
    columns = {
        "observed": np.arange(N) % CLASSES,
        "visits": np.full(N, 3) if visits is None else visits,
        "mean_loss": wrong + 0.1,
        "mean_margin": -wrong.astype(float),
        "mean_weight": 1.0 - wrong if weights is None else weights,
    }
    return Samples(columns, [str(i) for i in range(N)], list("abc"))


def logits_of(predicted):
    return np.eye(CLASSES, dtype=np.float32)[predicted] * 3


WRONG = np.arange(N) % 5 == 0


def test_every_signal_is_high_where_the_label_is_wrong():
    predicted = (np.arange(N) % CLASSES + WRONG) % CLASSES
    for signal in signals_of(samples_of(WRONG), logits_of(predicted), logits_of(predicted)):
        assert roc_auc_score(WRONG, signal.values) == 1, signal.name
        assert signal.meaning == MEANINGS[signal.name]


def test_a_run_without_learned_weights_has_no_such_signal():
    names = [signal.name for signal in signals_of(samples_of(WRONG, np.ones(N)), logits_of(np.zeros(N, int)), None)]
    assert names == ["loss", "margin", "prediction"]


def test_a_run_that_saw_no_training_example_has_its_predictions_alone():
    samples = samples_of(WRONG, visits=np.zeros(N, int))
    assert [signal.name for signal in signals_of(samples, logits_of(np.zeros(N, int)), None)] == ["prediction"]


def test_an_example_that_was_never_visited_is_neither_suspicious_nor_not():
    visits = np.where(np.arange(N) == 7, 0, 3)
    loss = signals_of(samples_of(WRONG, visits=visits), logits_of(np.zeros(N, int)), None)[0].values
    assert loss[7] == np.median(np.delete(loss, 7))


def test_a_run_that_diverged_is_refused():
    samples = samples_of(WRONG)
    samples.columns["mean_loss"][3] = np.nan
    with pytest.raises(UserError, match="its loss of an example is not a finite number"):
        signals_of(samples, logits_of(np.zeros(N, int)), None)


@given(st.integers(0, 10**6))
def test_the_margin_and_the_other_class_are_those_of_a_loop(seed):
    rng = np.random.RandomState(seed)
    logits, labels = rng.normal(size=(9, 4)), rng.randint(4, size=9)
    for i in range(9):
        others = {c: logits[i, c] for c in range(4) if c != labels[i]}
        best = max(others, key=others.get)
        assert other_class(logits[None], labels)[i] == best
        assert against(logits, labels)[i] == pytest.approx(others[best] - logits[i, labels[i]])


@given(st.integers(0, 10**6))
def test_what_several_networks_suggest_is_the_mean_of_their_probabilities_without_the_given_class(seed):
    rng = np.random.RandomState(seed)
    logits, labels = rng.normal(size=(3, 9, 4)), rng.randint(4, size=9)
    # learned by heart, and far apart
    logits[0, np.arange(9), labels] = 1000
    logits[1] *= 300
    for i in range(9):
        others = [c for c in range(4) if c != labels[i]]
        mean = np.mean([softmax(network[i, others]) for network in logits], axis=0)
        assert other_class(logits, labels)[i] == others[mean.argmax()]


class TestMeasured:
    def known(self, shift, seed=0, count=30):
        rng = np.random.RandomState(seed)
        return Known(rng.normal(size=count) + shift, rng.normal(size=count))

    def signals(self):
        return [Signal(name, "", np.zeros(3)) for name in ("a", "b", "c")]

    def test_the_best_is_first_and_an_inverted_one_last(self):
        known = {"a": self.known(-3), "b": self.known(0.5), "c": self.known(4)}
        ordered = measured(self.signals(), known)
        assert [signal.name for signal in ordered] == ["c", "b", "a"]
        assert ordered[0].auroc == known["c"].auroc() and ordered[-1].auroc < 0.1

    def test_what_is_hardly_better_does_not_replace_what_is_trusted_more(self):
        ordered = measured(self.signals(), {"a": self.known(3), "b": self.known(3.05), "c": self.known(3)})
        assert [signal.name for signal in ordered] == ["a", "b", "c"]

    def test_what_nothing_measures_keeps_its_place_but_behind_what_is_good(self):
        ordered = measured(self.signals(), {"b": self.known(0.2), "c": self.known(4)})
        assert [signal.name for signal in ordered] == ["c", "a", "b"]
        assert ordered[1].auroc is None


def test_the_standard_error_is_that_of_repeated_draws():
    rng = np.random.RandomState(0)
    drawn = [Known(rng.normal(size=40) + 1, rng.normal(size=60)) for _ in range(400)]
    spread = np.std([known.auroc() for known in drawn])
    assert np.mean([known.standard_error() for known in drawn]) == pytest.approx(spread, rel=0.15)
    certain = Known(np.full(5, 1.0), np.zeros(5))
    assert certain.auroc() == 1 and certain.standard_error() > 0.05


def test_figures_are_those_of_scikit_learn():
    rng = np.random.RandomState(1)
    wrong = rng.uniform(size=200) < 0.3
    values = wrong + rng.normal(size=200)
    found = figures(values, wrong)
    assert found["auroc"] == roc_auc_score(wrong, values)
    for name, count in (("precision_1", 2), ("precision_5", 10), ("precision_wrong", wrong.sum())):
        top = values >= np.sort(values)[-count]
        assert found[name] == pytest.approx(precision_score(wrong, top))
    assert figures(values, np.zeros(200, bool)) == {}
