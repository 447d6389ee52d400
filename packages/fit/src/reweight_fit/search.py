"""Which trainings are tried: successive halving over ways to train (Jamieson and Talwalkar, AISTATS 2016).

A way to train is tried with short trainings first; the better ones get longer ones, for as long as the budget lasts. A
short training, with a schedule of its own, is a way to train like any other, and may be the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import attrs
import numpy as np

from reweight_fit.candidates import DEFAULT, PLAIN, TRUSTED, Candidate
from reweight_fit.judgement import Judgement, best_of

LENGTHS = (1 / 9, 1 / 3, 1.0)
"""Lengths of training in the rounds, as shares of the full one."""

FOLDS = 3
"""Parts of the trusted examples, for ways to train that learn from them: each is judged by networks without it."""

ENOUGH = 600
"""Examples to be judged on from which one part of them says enough."""


@attrs.frozen
class Way:
    """A way to train.

    Attributes:
        candidate: name of the candidate.
        network: name of the network.
        length: share of the full length.
    """

    candidate: str
    network: str = DEFAULT.name
    length: float = 1.0


@attrs.frozen
class Trial:
    """A training that is judged.

    Attributes:
        way: how it trains.
        fold: (K, N): judged on the K-th of N parts of what there is to be judged on, which it did not learn from.
    """

    way: Way
    fold: tuple[int, int]


@attrs.frozen(eq=False)
class Outcome:
    """What a trial gave.

    Attributes:
        positions: the examples that it was judged on, int64 (k,).
        predicted: its prediction of each, int64 (k,).
        seconds: how long it took.
        wrong: share of each observed class that it takes for wrongly labelled, (C,), from a way to train that can tell.
        problem: why there is no prediction (-1), or None.
    """

    positions: np.ndarray
    predicted: np.ndarray
    seconds: float
    wrong: np.ndarray | None = None
    problem: str | None = None


@attrs.define(eq=False)
class Search:
    """What was tried, and what it says.

    Args:
        candidates: what may be tried, the simplest first.
        networks: names of networks for plain training; the others take the one that is best there.
        trusted_networks: names of networks for the trusted examples alone.
        labels: of the examples to be judged on, int64 (k,).
        weights: how much each of them counts, (k,).
        has_trusted: whether they are trusted ones; else ways to train are judged by a part of the training set.
        budget: what the trials may take, in seconds, from the seconds of a full plain training.
        run: makes trials, or recalls them.

    Attributes:
        outcomes: what was tried, and what came of it.
        network: the network that is best for plain training.
    """

    candidates: Sequence[Candidate]
    networks: Sequence[str]
    trusted_networks: Sequence[str]
    labels: np.ndarray
    weights: np.ndarray
    has_trusted: bool
    budget: Callable[[float], float]
    run: Callable[[Sequence[Trial]], Iterable[Outcome]]
    outcomes: dict[Trial, Outcome] = attrs.field(factory=dict)
    network: str = DEFAULT.name

    def go(self) -> None:
        """Make the trials of all rounds: first what all is compared with, whatever it costs."""
        # the full one alone, so that what it takes is known
        self._try([Way(PLAIN)])
        self._try([Way(PLAIN, length=length) for length in LENGTHS[:-1]])
        self._try([Way(PLAIN, network, LENGTHS[1]) for network in self.networks])
        self.network = self.best().network
        self._try([Way(PLAIN, self.network, length) for length in LENGTHS])
        if self.has_trusted:
            networks = dict.fromkeys([self.network, *self.trusted_networks])
            self._try([Way(TRUSTED, network, length) for network in networks for length in LENGTHS[1:]])
        for number, length in enumerate(LENGTHS):
            self._try_round(number, length)

    @property
    def seconds(self) -> float:
        """What all trials took."""
        return sum(outcome.seconds for outcome in self.outcomes.values())

    @property
    def plain_seconds(self) -> float:
        """What a full plain training takes."""
        return self.outcomes[Trial(Way(PLAIN), self._folds(PLAIN)[0])].seconds

    def judgements(self) -> dict[Way, Judgement]:
        """Return the judgement of every way to train that was tried, the simplest first."""
        parts: dict[Way, list[tuple[np.ndarray, np.ndarray]]] = {}
        for trial, outcome in self.outcomes.items():
            right = outcome.predicted == self.labels[outcome.positions]
            parts.setdefault(trial.way, []).append((outcome.positions, right))
        order = {candidate.name: i for i, candidate in enumerate(self.candidates)}
        # of one candidate, the full length is what everybody expects
        ways = sorted(parts, key=lambda way: (order[way.candidate], way.network != DEFAULT.name, -way.length))
        return {way: Judgement.of(self.weights, parts[way]) for way in ways}

    def best(self) -> Way:
        """Return what to train with: the best of what was judged in all parts; of equals, the simplest."""
        return best_of({way: found for way, found in self.judgements().items() if self._is_whole(way)}, Way(PLAIN))

    def _is_whole(self, way: Way) -> bool:
        return all(Trial(way, fold) in self.outcomes for fold in self._folds(way.candidate))

    def _try(self, ways: Iterable[Way], only_first_fold: bool = False) -> None:
        trials = [
            Trial(way, fold)
            for way in dict.fromkeys(ways)
            for fold in self._folds(way.candidate)[: 1 if only_first_fold else None]
        ]
        new = [trial for trial in trials if trial not in self.outcomes]
        for trial, outcome in zip(new, self.run(new), strict=True):
            self.outcomes[trial] = outcome

    def _try_round(self, number: int, length: float) -> None:
        """Try what is promising, in turn, for as long as what is expected to be needed is left."""
        left, chosen = self._left(number), []
        for candidate in self._ranked(number):
            way = Way(candidate.name, self.network, length)
            expected = self._expected(candidate, length) * (1 if number == 0 else len(self._folds(candidate.name)))
            if expected <= left:
                left -= expected
                chosen.append(way)
        self._try(chosen, only_first_fold=number == 0)

    def _ranked(self, number: int) -> list[Candidate]:
        """Return the candidates of a round, the most promising first."""
        others = [candidate for candidate in self.candidates if candidate.name not in (PLAIN, TRUSTED)]
        if number == 0:
            return others
        judgements = self.judgements()
        estimates: dict[str, float] = {}
        for way, judgement in judgements.items():
            estimate = judgement.estimate(judgements[Way(PLAIN)])
            estimates[way.candidate] = max(estimate, estimates.get(way.candidate, 0.0))
        tried = [candidate for candidate in others if candidate.name in estimates and not self._failed(candidate)]
        return sorted(tried, key=lambda candidate: -estimates[candidate.name])

    def _failed(self, candidate: Candidate) -> bool:
        return any(o.problem is not None for t, o in self.outcomes.items() if t.way.candidate == candidate.name)

    def _folds(self, name: str) -> list[tuple[int, int]]:
        """Return the parts that a candidate is judged on."""
        uses_trusted = next(candidate.uses_trusted for candidate in self.candidates if candidate.name == name)
        if self.has_trusted and not uses_trusted:
            return [(1, 1)]
        folds = [(number, FOLDS) for number in range(1, FOLDS + 1)]
        return folds if self.has_trusted and len(self.labels) < ENOUGH else folds[:1]

    def _expected(self, candidate: Candidate, length: float) -> float:
        """Return what a trial of a candidate will take, from what those before took."""
        known = {t.way.length: o.seconds for t, o in self.outcomes.items() if t.way.candidate == candidate.name}
        if known:
            # the longest is least disturbed by what every training needs once
            return known[max(known)] / max(known) * length
        plain = {t.way.length: o.seconds for t, o in self.outcomes.items() if t.way.network == self.network}
        return candidate.cost * plain[length]

    def _left(self, number: int) -> float:
        """Return what is left of the budget for a round: what the rounds before left is its too."""
        total, rounds = self.budget(self.plain_seconds), len(LENGTHS)
        if math.isinf(total):
            return total
        others = sum(o.seconds for t, o in self.outcomes.items() if t.way.candidate not in (PLAIN, TRUSTED))
        return (total - (self.seconds - others)) * (number + 1) / rounds - others
