"""What a search found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from reweight_fit.candidates import DEFAULT, PLAIN, TRUSTED, is_unbalanced
from reweight_fit.judgement import Judgement
from reweight_fit.search import Search, Way

SURE = 0.03
"""Standard error of a lead that is small enough to choose by."""

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
        lead: the same by all that is known, which decides.
        lead_error: its standard deviation.
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
    lead: float
    lead_error: float
    judged_on: int
    seconds: float
    problem: str | None


@attrs.frozen
class Report:
    """What a search found.

    Attributes:
        rows: what was tried, the best lead first, what failed last.
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
    wrong: dict[str, float | None] | None
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
    best = search.best()
    rows = {way: _row(way, search) for way in search.judgements()}
    recalls = _recalls(search.judgements()[best], search.labels, classes)
    wrong = _wrong(search, classes)
    known = {c: share for c, name in enumerate(classes) if wrong is not None and (share := wrong[name]) is not None}
    share = float(np.average(list(known.values()), weights=counts[list(known)])) if known else None
    return Report(
        rows=sorted(rows.values(), key=lambda row: (row.problem is not None, -row.lead)),
        winner=rows[best],
        by="trusted" if search.has_trusted else "observed",
        seconds=search.seconds,
        plain_seconds=search.plain_seconds,
        recalls=recalls,
        wrong=wrong,
        sentences=[
            *_what_won(rows, best, search),
            *_what_is_wrong(wrong, share, recalls, counts, search.has_trusted),
            *_what_would_help(rows, best, share, recalls, search),
        ],
    )


def _row(way: Way, search: Search) -> Row:
    judgement, reference = search.judgements()[way], search.judgements()[Way(PLAIN)]
    ahead, lead = judgement.ahead_of(reference), search.leads()[way]
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
        lead=lead.mean,
        lead_error=lead.deviation,
        judged_on=int(judgement.judged.sum()),
        seconds=sum(outcome.seconds for outcome in outcomes),
        problem=next((outcome.problem for outcome in outcomes if outcome.problem is not None), None),
    )


def _recalls(judgement: Judgement, labels: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for c, name in enumerate(classes):
        of_class = judgement.right[judgement.judged & (labels == c)]
        found[name] = float(of_class.mean()) if len(of_class) else None
    return found


def _wrong(search: Search, classes: Sequence[str]) -> dict[str, float | None] | None:
    """Return what the longest trainings that can tell say of each observed class, in the mean."""
    telling = {trial: outcome.wrong for trial, outcome in search.outcomes.items() if outcome.wrong is not None}
    if not telling:
        return None
    longest = max(trial.way.length for trial in telling)
    shares = [wrong for trial, wrong in telling.items() if trial.way.length == longest]
    found: dict[str, float | None] = {}
    for name, of_class in zip(classes, zip(*shares, strict=True), strict=True):
        known = [share for share in of_class if share is not None]
        found[name] = float(np.mean(known)) if known else None
    return found


def _what_won(rows: Mapping[Way, Row], best: Way, search: Search) -> list[str]:
    winner, judgements = rows[best], search.judgements()
    kind = "trusted examples that it did not learn from" if search.has_trusted else "examples, by their observed labels"
    network = "" if winner.network == DEFAULT.name else f" with the network '{winner.network}'"
    length = "" if winner.length == 1 else f" for {winner.length:.2f} of the usual length"
    figure = f"accuracy {winner.accuracy:.3f} ± {winner.error:.3f} on {winner.judged_on} {kind}"
    said = [f"{winner.name}{network}{length} won: {figure}."]
    if best == Way(PLAIN):
        said.append("Nothing else is clearly better: plain training is the simplest.")
    for name, words in ((PLAIN, "Plain training"), (TRUSTED, "The trusted examples alone")):
        others = [way for way, row in rows.items() if way.candidate == name and way != best and row.problem is None]
        if not others or (name == PLAIN and best == Way(PLAIN)):
            continue
        # of plain training, what everybody would do
        other = Way(PLAIN) if name == PLAIN else max(others, key=lambda way: rows[way].score)
        lead = judgements[best].ahead_of(judgements[other])
        side = "lower" if lead.mean >= 0 else "higher"
        said.append(
            f"{words}: accuracy {rows[other].accuracy:.3f}, score {abs(lead.mean):.3f} ± {lead.deviation:.3f} {side}."
        )
    if not search.has_trusted:
        said.append(
            "This tells how well observed labels are predicted. Where wrong labels are at random, what predicts them "
            "best is best; where the same mistakes are made everywhere, it may be what repeats them, and only trusted "
            "examples (--meta-size) could tell."
        )
    return said


def _what_is_wrong(
    wrong: Mapping[str, float | None] | None,
    share: float | None,
    recalls: Mapping[str, float | None],
    counts: np.ndarray,
    has_trusted: bool,
) -> list[str]:
    said = []
    if wrong is None or share is None:
        why = "'posterior-label' was not tried" if has_trusted else "that needs trusted examples"
        said.append(f"How many labels are wrong was not estimated: {why}.")
    else:
        ranked = sorted(((of_class, name) for name, of_class in wrong.items() if of_class is not None), reverse=True)
        named = ", ".join(f"{name} {of_class:.0%}" for of_class, name in ranked[:3])
        said.append(f"Of the training labels, some {share:.0%} seem to be wrong; by observed class, the most: {named}.")
        if is_unbalanced(counts):
            said.append("Where classes are of unlike size, right labels of the small ones may seem wrong.")
    known = sorted((recall, name) for name, recall in recalls.items() if recall is not None and recall < 1)
    if known:
        named = ", ".join(f"{name} {recall:.2f}" for recall, name in known[:3])
        of = "trusted examples" if has_trusted else "observed labels"
        said.append(f"What is recognised least (share of its {of}): {named}.")
    return said


def _what_would_help(
    rows: Mapping[Way, Row], best: Way, share: float | None, recalls: Mapping[str, float | None], search: Search
) -> list[str]:
    if not search.has_trusted:
        return ["What would help: a few trusted examples of each class, to choose by and to learn from."]
    said = []
    others = [way for way, row in rows.items() if way.candidate != best.candidate and row.problem is None]
    if others:
        second = max(others, key=lambda way: rows[way].lead)
        error = search.judgements()[best].ahead_of(search.judgements()[second]).deviation
        if error > SURE:
            needed = _rounded(len(search.labels) * (error / SURE) ** 2)
            said.append(
                f"Between {best.candidate} and {second.candidate} the choice is sure to {100 * error:.0f} points; with "
                f"about {needed} trusted examples, it would be to {100 * SURE:.0f}."
            )
    if share is not None and share < FEW_WRONG:
        said.append("Few labels are wrong: more training examples would help more than more trusted ones.")
    elif next(candidate.uses_trusted for candidate in search.candidates if candidate.name == best.candidate):
        known = {name: recall for name, recall in recalls.items() if recall is not None}
        weakest = min(known, key=lambda name: known[name])
        said.append(f"What won learns from trusted examples, and would from more of them, first of class '{weakest}'.")
    else:
        said.append("What won learns nothing from trusted examples: more of them would only make the choice surer.")
    return said


def _rounded(number: float) -> int:
    """Return a number with one digit that is not 0, rounded up."""
    digit = 10 ** max(0, len(str(int(number))) - 1)
    return int(-(-number // digit) * digit)
