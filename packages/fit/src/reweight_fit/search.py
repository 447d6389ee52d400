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
from reweight_fit.judgement import OBSERVED_TIE, TIE, Judgement, Lead, best_of

LENGTHS = (1 / 3, 1.0)
"""Lengths of training in the rounds, as shares of the full one."""

SHORTEST = 1 / 9
"""Plain training is tried that short too: stopping early is what helps it against wrong labels."""

FOLDS = 3
"""Parts of the trusted examples, for ways to train that learn from them: each is judged by networks without it."""

FEW = 150
"""Trusted examples up to which training on them alone, which costs little, is judged in twice as many parts: without a
third of so few it would look worse than it is."""

ENOUGH = 600
"""Examples to be judged on from which one part of them says enough."""

UNUSUAL, SHORT = -0.01, -0.02
"""What the lead of a candidate is expected to change by with another network or length, and with the shortest."""

FIRST_ROUND = 2 / 3
"""Share of the budget that the first round may use."""


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
        logits: of these, float32 (k, C); NaN where there is no network.
        seconds: how long it took.
        wrong: share of each observed class that it takes for wrongly labelled, from a way to train that can tell.
        problem: why there is no network, or None.
    """

    positions: np.ndarray
    logits: np.ndarray
    seconds: float
    wrong: Sequence[float | None] | None = None
    problem: str | None = None

    @property
    def predicted(self) -> np.ndarray:
        """Its prediction of each, int64 (k,); -1 where there is no network."""
        return np.where(np.isfinite(self.logits).all(1), self.logits.argmax(1), -1)


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
        at_once: how many it makes at a time.

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
    at_once: int = 1
    outcomes: dict[Trial, Outcome] = attrs.field(factory=dict)
    network: str = DEFAULT.name
    _judged: dict[Way, Judgement] = attrs.field(factory=dict)

    def go(self) -> None:
        """Make the trials of all rounds: first what all is compared with, whatever it costs."""
        lengths = [SHORTEST, *LENGTHS]
        # one after the other, the shortest first: what a process needs once is not counted to the full one
        for length in lengths:
            self._try([Way(PLAIN, length=length)])
        self._try([Way(PLAIN, network, LENGTHS[0]) for network in self.networks])
        self.network = self.best().network
        self._try([Way(PLAIN, self.network, length) for length in lengths])
        if any(candidate.name == TRUSTED for candidate in self.candidates):
            unusual = [self.network] if self.network != DEFAULT.name else []
            self._try([Way(TRUSTED, network) for network in dict.fromkeys([*unusual, *self.trusted_networks])])
        total = self.budget(self.plain_seconds)
        others = [candidate for candidate in self.candidates if candidate.name not in (PLAIN, TRUSTED)]
        self._try_round(others, LENGTHS[0], self.seconds + FIRST_ROUND * (total - self.seconds))
        self._try_round(self._promising(), LENGTHS[1], total)

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
            parts.setdefault(trial.way, []).append((outcome.positions, outcome.logits))
        for way, of_way in parts.items():
            if way not in self._judged:
                self._judged[way] = Judgement.of(self.labels, self.weights, of_way)
        order = {candidate.name: i for i, candidate in enumerate(self.candidates)}
        # of one candidate, the full length is what everybody expects
        ways = sorted(parts, key=lambda way: (order[way.candidate], way.network != DEFAULT.name, -way.length))
        return {way: self._judged[way] for way in ways}

    def leads(self) -> dict[Way, Lead]:
        """Return how far every way to train that was tried is ahead of plain training, by all that is known of it."""
        judgements = self.judgements()
        known = {candidate.name: candidate.expected for candidate in self.candidates}
        found = {}
        for way, judgement in judgements.items():
            before = known[way.candidate]
            change = (
                UNUSUAL * (way.network != DEFAULT.name) + UNUSUAL * (way.length < 1) + SHORT * (way.length < LENGTHS[0])
            )
            found[way] = attrs.evolve(before, mean=before.mean + change).after(
                judgement.ahead_of(judgements[Way(PLAIN)])
            )
        return found | {Way(PLAIN): Lead(0.0, 0.0)}

    def best(self) -> Way:
        """Return what to train with: the best; of equals, the simplest."""
        return best_of(self.leads(), TIE if self.has_trusted else OBSERVED_TIE)

    def _try(self, ways: Iterable[Way]) -> None:
        trials = [Trial(way, fold) for way in dict.fromkeys(ways) for fold in self._folds(way.candidate)]
        new = [trial for trial in trials if trial not in self.outcomes]
        for trial, outcome in zip(new, self.run(new), strict=True):
            self.outcomes[trial] = outcome

    def _try_round(self, candidates: Sequence[Candidate], length: float, until: float) -> None:
        """Try candidates in turn, for as long as what is expected to be needed is left.

        Args:
            candidates: the most promising first.
            length: share of the full length.
            until: seconds that all trials may have taken after it.
        """
        chosen: list[Way] = []
        expected, trials = 0.0, 0
        for candidate in candidates:
            folds = len(self._folds(candidate.name))
            seconds = self._expected(candidate, length) * folds
            if self.seconds + expected + seconds > until:
                continue
            chosen.append(Way(candidate.name, self.network, length))
            expected, trials = expected + seconds, trials + folds
            if trials >= self.at_once:
                # what they took is known before the next are chosen
                self._try(chosen)
                chosen, expected, trials = [], 0.0, 0
        self._try(chosen)

    def _promising(self) -> list[Candidate]:
        """Return the candidates of the first round, those with the best leads first."""
        best: dict[str, float] = {}
        for way, lead in self.leads().items():
            best[way.candidate] = max(lead.mean, best.get(way.candidate, -math.inf))
        tried = [candidate for candidate in self.candidates if candidate.name in best and not self._failed(candidate)]
        others = [candidate for candidate in tried if candidate.name not in (PLAIN, TRUSTED)]
        return sorted(others, key=lambda candidate: -best[candidate.name])

    def _failed(self, candidate: Candidate) -> bool:
        return any(o.problem is not None for t, o in self.outcomes.items() if t.way.candidate == candidate.name)

    def _folds(self, name: str) -> list[tuple[int, int]]:
        """Return the parts that a candidate is judged on."""
        uses_trusted = next(candidate.uses_trusted for candidate in self.candidates if candidate.name == name)
        if self.has_trusted and not uses_trusted:
            return [(1, 1)]
        if not self.has_trusted or len(self.labels) >= ENOUGH:
            return [(1, FOLDS)]
        parts = min(len(self.labels), 2 * FOLDS if name == TRUSTED and len(self.labels) < FEW else FOLDS)
        return [(number, parts) for number in range(1, parts + 1)]

    def _expected(self, candidate: Candidate, length: float) -> float:
        """Return what a trial of a candidate will take, from what those before took."""
        known = {t.way.length: o.seconds for t, o in self.outcomes.items() if t.way.candidate == candidate.name}
        if known:
            # the longest is least disturbed by what every training needs once
            return known[max(known)] / max(known) * length
        plain = self.outcomes[Trial(Way(PLAIN, self.network, length), self._folds(PLAIN)[0])]
        return candidate.cost * plain.seconds
