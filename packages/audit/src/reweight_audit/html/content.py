"""What an audit found, as the JSON values that the page draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np

from reweight_audit.records import Audit

BINS = 40

CONFUSIONS = 20_000
"""Pairs of classes that are given to the page, at most; more than are shown."""


def content_of(audit: Audit, listed: np.ndarray) -> dict[str, Any]:
    """Return the figures of an audit, those that are not the user's left out.

    Args:
        audit: what was found.
        listed: positions of the examples to list, in their order.
    """
    own = ~audit.planted
    is_known = bool((audit.true[own] >= 0).all())
    weights = audit.weights[own & np.isfinite(audit.weights)]
    squares = float((weights**2).sum())
    return {
        "run": audit.run,
        "fingerprint": audit.fingerprint,
        "classes": list(audit.classes),
        "calibrated": audit.calibrated,
        "examples": int(own.sum()),
        "effective": float(weights.sum()) ** 2 / squares if squares else 0.0,
        "listed": {
            "id": audit.ids[listed].tolist(),
            "name": [audit.names[position] for position in listed],
            "given": audit.given[listed].tolist(),
            "suggested": audit.suggested[listed].tolist(),
            "true": audit.true[listed].tolist(),
            "probability": numbers(audit.probability[listed]),
            "weight": numbers(audit.weights[listed]),
            "signal": numbers(audit.signals[0].values[listed]),
        },
        "wrongOfAll": attrs.asdict(audit.wrong_of_all),
        "wrongInFact": float((audit.true != audit.given)[own].mean()) if is_known else None,
        "wrong": [
            {"examples": int(count), **attrs.asdict(share)}
            for count, share in zip(
                np.bincount(audit.given[own], minlength=len(audit.classes)), audit.wrong, strict=True
            )
        ],
        "right": numbers(np.diagonal(audit.matrix)),
        "confusions": _confusions(audit.matrix),
        "signals": [
            {
                "name": signal.name,
                "meaning": signal.meaning,
                "auroc": signal.auroc,
                "known": dict(signal.known),
            }
            for signal in audit.signals
        ],
        "histograms": {
            "weights": histogram(audit, audit.weights),
            "signal": histogram(audit, audit.signals[0].values),
        },
    }


def numbers(values: Iterable[float]) -> list[float | None]:
    """Return numbers with four digits that count; None for those that are not finite, which JSON lacks."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def _confusions(matrix: np.ndarray) -> list[list[float]]:
    """List given class, suggested class and number of examples of what is off the diagonal, the most first."""
    off = matrix - np.diag(np.diagonal(matrix))
    suggested, given = np.nonzero(off > 0)
    counts = off[suggested, given]
    most = np.argsort(-counts, kind="stable")[:CONFUSIONS]
    return [[int(given[k]), int(suggested[k]), round(float(counts[k]), 2)] for k in most]


def histogram(audit: Audit, values: np.ndarray) -> dict[str, Any]:
    """Count values in bins, apart for right and wrong labels: by the true ones where all are known, else by estimate.

    The bins go from the 0.5th to the 99.5th percentile; the outermost ones have what lies beyond, too.

    Returns:
        ``edges`` of the bins, and the ``groups`` that are not empty, each with ``name``, ``wrong`` and ``counts``; no
        edges if all values are the same.
    """
    used = ~audit.planted & np.isfinite(values)
    if not used.any():
        return {"edges": [], "groups": []}
    low, high = np.percentile(values[used], (0.5, 99.5))
    if low == high:
        # a few that differ from all others
        low, high = values[used].min(), values[used].max()
    if low == high:
        return {"edges": [], "groups": [], "value": numbers([low])[0]}
    edges = np.linspace(low, high, BINS + 1)
    known = bool((audit.true[used] >= 0).all())
    wrong = audit.true != audit.given if known else audit.probability >= 0.5
    names = ("right labels", "wrong labels") if known else ("probably right", "probably wrong")
    groups = [
        {
            "name": name,
            "wrong": is_wrong,
            "counts": np.histogram(np.clip(values[used & (wrong == is_wrong)], low, high), edges)[0].tolist(),
        }
        for name, is_wrong in zip(names, (False, True), strict=True)
    ]
    return {"edges": numbers(edges), "groups": [group for group in groups if sum(group["counts"])]}
