"""What a search found, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from reweight_fit.candidates import PLAIN, TRUSTED
from reweight_fit.search import Search, Way

SURE = 0.03
"""Standard error of an accuracy that is small enough to choose by."""

FEW_WRONG = 0.05
"""Share of wrong labels below which they are not what keeps the accuracy low."""


@attrs.frozen
class Row:
    """A way to train that was tried.

    Attributes:
        name: the candidate's.
        network: the network's.
        length: share of the full length.
        accuracy: share of right predictions of what it was judged on.
        error: its standard error.
        score: mean of the share of right predictions and of the probabilities of the labels.
        ahead: how far its score is ahead of that of plain training on the same examples.
        ahead_error: standard error of that.
        judged_on: number of examples that it was judged on.
        seconds: what its trials took.
        problem: why it has no figures, or None.
    """

    name: str
    network: str
    length: float
    accuracy: float
    error: float
    score: float
    ahead: float
    ahead_error: float
    judged_on: int
    seconds: float
    problem: str | None


@attrs.frozen
class Report:
    """What a search found.

    Attributes:
        rows: what was tried, the best first.
        winner: the row of what was taken.
        by: what ways were judged by: ``trusted`` examples or ``observed`` labels.
        seconds: what all trials took.
        plain_seconds: seconds of a full plain training.
        recalls: share of each class that the winner predicts right on what it was judged on; None for a class of which
            it saw none.
        wrong: estimated share of wrong labels among those of each observed class, by class name; None where it is
            unknown.
        sentences: what it means.
    """

    rows: Sequence[Row]
    winner: Row
    by: str
    seconds: float
    plain_seconds: float
    recalls: dict[str, float | None]
    wrong: dict[str, float] | None
    sentences: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return attrs.asdict(self)


def report_of(search: Search, classes: Sequence[str], counts: np.ndarray) -> Report:
    """Describe what a search found.

    Args:
        search: the search.
        classes: class names, by index.
        counts: training examples of each class by observed label, (C,).
    """
    judgements, best = search.judgements(), search.best()
    rows = {way: _row(way, search) for way in judgements}
    recalls = _recalls(search, best, classes)
    shares = [np.array(outcome.wrong) for outcome in search.outcomes.values() if outcome.wrong is not None]
    wrong = None if not shares else np.mean(shares, axis=0)
    return Report(
        # what failed comes last
        rows=sorted(rows.values(), key=lambda row: (row.problem is not None, -row.score)),
        winner=rows[best],
        by="trusted" if search.has_trusted else "observed",
        seconds=search.seconds,
        plain_seconds=search.plain_seconds,
        recalls=recalls,
        wrong=None if wrong is None else dict(zip(classes, wrong.tolist(), strict=True)),
        sentences=[
            *_what_won(rows, best, search),
            *_what_is_wrong(wrong, recalls, classes, counts, search),
            *_what_would_help(rows[best], wrong, recalls, counts, search),
        ],
    )


def _row(way: Way, search: Search) -> Row:
    judgements = search.judgements()
    judgement, reference = judgements[way], judgements[Way(PLAIN)]
    ahead = judgement.ahead_of(reference)
    outcomes = [outcome for trial, outcome in search.outcomes.items() if trial.way == way]
    return Row(
        name=way.candidate,
        network=way.network,
        length=way.length,
        accuracy=judgement.accuracy(),
        error=judgement.standard_error(),
        score=judgement.estimate(reference),
        ahead=ahead.mean,
        ahead_error=ahead.deviation,
        judged_on=int(judgement.judged.sum()),
        seconds=sum(outcome.seconds for outcome in outcomes),
        problem=next((outcome.problem for outcome in outcomes if outcome.problem is not None), None),
    )


def _recalls(search: Search, way: Way, classes: Sequence[str]) -> dict[str, float | None]:
    judgement = search.judgements()[way]
    found: dict[str, float | None] = {}
    for c, name in enumerate(classes):
        of_class = judgement.right[judgement.judged & (search.labels == c)]
        found[name] = float(of_class.mean()) if len(of_class) else None
    return found


def _what_won(rows: dict[Way, Row], best: Way, search: Search) -> list[str]:
    winner = rows[best]
    kind = "trusted examples" if search.has_trusted else "examples held out, by their observed labels"
    network = "" if winner.network == "default" else f" with the network '{winner.network}'"
    length = "" if winner.length == 1 else f" for {winner.length:.2f} of the usual length"
    of = f"{winner.judged_on} {kind}" + (" that it did not learn from" if search.has_trusted else "")
    said = [f"{winner.name}{network}{length} won: accuracy {winner.accuracy:.3f} ± {winner.error:.3f} on {of}."]
    for name, words in ((PLAIN, "Plain training"), (TRUSTED, "The trusted examples alone")):
        others = [way for way in rows if way.candidate == name]
        if winner.name != name and others:
            nearest = max(others, key=lambda way: rows[way].score)
            judgements = search.judgements()
            lead = judgements[best].ahead_of(judgements[nearest])
            said.append(
                f"{words}, at best: accuracy {rows[nearest].accuracy:.3f}, and a score that is {lead.mean:.3f} ± "
                f"{lead.deviation:.3f} lower."
            )
    if winner.name == PLAIN:
        said.append("Nothing else is clearly better: it is taken because it is the simplest.")
    if not search.has_trusted:
        said.append(
            "This tells how well observed labels are predicted. Where wrong labels are at random, what predicts them "
            "best is best; where the same mistakes are made everywhere, it may be what repeats them, and only trusted "
            "examples (--meta-size) could tell."
        )
    return said


def _what_is_wrong(
    wrong: np.ndarray | None,
    recalls: dict[str, float | None],
    classes: Sequence[str],
    counts: np.ndarray,
    search: Search,
) -> list[str]:
    said = []
    if wrong is not None:
        share = float(np.average(wrong, weights=counts))
        worst = np.argsort(-wrong, kind="stable")[:3]
        named = ", ".join(f"{classes[c]} {wrong[c]:.0%}" for c in worst)
        said.append(f"Of the training labels, some {share:.0%} seem to be wrong; by observed class, the most: {named}.")
    known = sorted((recall, name) for name, recall in recalls.items() if recall is not None and recall < 1)
    if known:
        named = ", ".join(f"{name} {recall:.2f}" for recall, name in known[:3])
        of = "trusted examples" if search.has_trusted else "observed labels"
        said.append(f"What is recognised least (share of its {of}): {named}.")
    return said


def _what_would_help(
    winner: Row, wrong: np.ndarray | None, recalls: dict[str, float | None], counts: np.ndarray, search: Search
) -> list[str]:
    if not search.has_trusted:
        return ["What would help: a few trusted examples of each class, to choose by and to learn from."]
    said = []
    if winner.error > SURE:
        needed = len(search.labels) * (winner.error / SURE) ** 2
        said.append(
            f"What would help: with about {_rounded(needed)} trusted examples the choice would be sure to 3 points."
        )
    if wrong is not None and float(np.average(wrong, weights=counts)) < FEW_WRONG:
        said.append("Few labels are wrong: more training examples would help more than more trusted ones.")
    elif next(candidate.uses_trusted for candidate in search.candidates if candidate.name == winner.name):
        known = {name: recall for name, recall in recalls.items() if recall is not None}
        weakest = min(known, key=lambda name: known[name])
        said.append(f"What won learns from trusted examples, and would from more of them, first of class '{weakest}'.")
    return said


def _rounded(number: float) -> int:
    """Return a number with one digit that is not 0, rounded up."""
    digit = 10 ** max(0, len(str(int(number))) - 1)
    return int(-(-number // digit) * digit)
