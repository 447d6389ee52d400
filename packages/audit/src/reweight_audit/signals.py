"""What of a run's knowledge tells wrong labels from right ones, and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from sklearn.metrics import roc_auc_score

from reweight_audit.records import Signal
from reweight_core import Samples, UserError

OUT_OF_SAMPLE, LOSS, MARGIN, PREDICTION, WEIGHT = "out-of-sample", "loss", "margin", "prediction", "weight"

MEANINGS = {
    OUT_OF_SAMPLE: "what networks that did not learn from the example say against its label; high: wrong",
    LOSS: "its training loss, mean over the epochs; high: wrong",
    MARGIN: "how far the logit of its label stood below the largest other one, mean over the epochs; high: wrong",
    PREDICTION: "how far the logit of its label stands below the largest other one at the end; high: wrong",
    WEIGHT: "its learned weight, mean over the epochs, with its sign turned: low weight, high signal: wrong",
}
"""In the order in which they are trusted where nothing measures them, the best first."""

USUAL = 0.8
"""AUROC that a signal is taken to have where nothing measures it."""

WORSE = 0.5
"""Standard errors by which a signal must be ahead of one that is trusted more."""


@attrs.frozen(eq=False)
class Known:
    """A signal of examples whose labels are known.

    Attributes:
        wrong: of some with wrong labels, (a,).
        right: of some with right ones, (b,).
    """

    wrong: np.ndarray
    right: np.ndarray

    def auroc(self) -> float:
        """Return how often a wrong label has the higher signal."""
        truth = np.repeat([1, 0], [len(self.wrong), len(self.right)])
        return float(roc_auc_score(truth, np.concatenate([self.wrong, self.right])))

    def standard_error(self) -> float:
        """Return that of the AUROC (Hanley and McNeil, Radiology 1982, eq. 1); of one near 1, not quite 0."""
        a, n, m = self.auroc(), len(self.wrong), len(self.right)
        q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
        variance = (a * (1 - a) + (n - 1) * (q1 - a**2) + (m - 1) * (q2 - a**2)) / (n * m)
        # as if of one pair more the wrong one were ahead in half of the cases
        return float(np.sqrt(max(0.0, variance) + 0.25 / ((n + 1) * (m + 1))))


def signals_of(samples: Samples, logits: np.ndarray, out_of_sample: np.ndarray | None) -> list[Signal]:
    """Return the signals that a run has, in the order of `MEANINGS`.

    Args:
        samples: what the run knew of each training example.
        logits: of the network that the run ended with, float32 (N, C).
        out_of_sample: of networks that did not learn from the example, (N, C), or None.

    Raises:
        UserError: if a number is not finite.
    """
    columns = samples.columns
    labels, visited = columns["observed"], columns["visits"] > 0
    found: dict[str, np.ndarray] = {}
    if out_of_sample is not None:
        found[OUT_OF_SAMPLE] = against(out_of_sample, labels)
    # a run that trained on the trusted examples alone never saw the others
    if visited.any():
        found[LOSS] = _of_visited(columns["mean_loss"], visited)
        found[MARGIN] = _of_visited(-columns["mean_margin"], visited)
    found[PREDICTION] = against(logits, labels)
    weights = columns["mean_weight"]
    if visited.any() and np.ptp(weights[visited]) > 0:
        found[WEIGHT] = _of_visited(-weights, visited)
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise UserError(f"the run has diverged: its {name} of an example is not a finite number")
    return [Signal(name, MEANINGS[name], values.astype(np.float64)) for name, values in found.items()]


def against(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how far the logit of each label is below the largest other one, (N,)."""
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    difference: np.ndarray = others.max(1) - logits[rows, labels]
    return difference


def other_class(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the likeliest class if the label is wrong, by the mean of the probabilities, int64 (N,).

    What a network learned by heart then has no say in it.

    Args:
        logits: of each network, (K, N, C).
        labels: (N,).
    """
    others = logits.astype(np.float64)
    others[:, np.arange(len(labels)), labels] = -np.inf
    probabilities = np.exp(others - others.max(2, keepdims=True))
    found: np.ndarray = (probabilities / probabilities.sum(2, keepdims=True)).mean(0).argmax(1)
    return found


def _of_visited(values: np.ndarray, visited: np.ndarray) -> np.ndarray:
    """Return the values, and the median for examples that were never in a batch."""
    return np.where(visited, values, np.median(values[visited]))


def measured(signals: Sequence[Signal], known: Mapping[str, Known]) -> list[Signal]:
    """Return signals with how well they tell known wrong labels from known right ones, the best first.

    One is ahead of another that is trusted more only if its AUROC is clearly larger.

    Args:
        signals: in the order in which they are trusted.
        known: what measures each, by name.
    """
    left = [
        attrs.evolve(signal, auroc=known[signal.name].auroc()) if signal.name in known else signal for signal in signals
    ]
    ordered: list[Signal] = []
    while left:
        best = max(left, key=_rank)
        least = _rank(best) - (WORSE * known[best.name].standard_error() if best.name in known else 0)
        chosen = next(signal for signal in left if _rank(signal) >= least)
        left.remove(chosen)
        ordered.append(chosen)
    return ordered


def _rank(signal: Signal) -> float:
    """Return the AUROC of a signal; where nothing measures it, what is to be expected."""
    return USUAL if signal.auroc is None else signal.auroc


def figures(values: np.ndarray, wrong: np.ndarray) -> Mapping[str, float]:
    """Return AUROC and precision of a signal by the true labels; nothing if all are right, or all wrong.

    Args:
        values: the signal, (k,).
        wrong: which labels are wrong, bool (k,).
    """
    if wrong.all() or not wrong.any():
        return {}
    order = np.argsort(-values, kind="stable")

    def precision(count: int) -> float:
        return float(wrong[order[: max(1, count)]].mean())

    return {
        "auroc": float(roc_auc_score(wrong, values)),
        "precision_1": precision(round(0.01 * len(values))),
        "precision_5": precision(round(0.05 * len(values))),
        "precision_wrong": precision(int(wrong.sum())),
    }
