"""The search against made-up ways to train, whose accuracies are known."""

import math

import numpy as np
import pytest

from reweight_fit.candidates import Candidate
from reweight_fit.search import FOLDS, LENGTHS, Outcome, Search

SIZE = 300

CANDIDATES = [
    Candidate("erm", {"method": "erm"}),
    Candidate("clean-only", {"method": "clean-only"}, uses_trusted=True),
    Candidate("good", {"method": "good"}),
    Candidate("careful", {"method": "careful"}, uses_trusted=True),
    Candidate("bad", {"method": "bad"}),
]


class World:
    """Gives outcomes by chance, and remembers the trials."""

    def __init__(self, accuracies, costs=None, seed=0):
        self.accuracies, self.costs = accuracies, costs or {}
        self.draws = np.random.default_rng(seed).random(SIZE)
        self.trials = []

    def run(self, trial):
        self.trials.append(trial)
        accuracy = self.accuracies[trial.candidate.name]
        share = accuracy[LENGTHS.index(trial.length)] if isinstance(accuracy, tuple) else accuracy
        number, parts = trial.fold
        positions = np.arange(SIZE)[number - 1 :: parts]
        seconds = trial.length * self.costs.get(trial.candidate.name, 1.0)
        return Outcome(positions, self.draws[positions] < share, seconds)


def searched(world, times=1000.0, has_trusted=True, size=SIZE, candidates=CANDIDATES):
    search = Search(candidates, world.run, size, has_trusted, lambda plain: times * plain)
    search.go()
    return search


def test_the_best_way_is_found_and_its_length():
    world = World({"erm": (0.8, 0.6, 0.5), "clean-only": 0.6, "good": 0.7, "careful": 0.75, "bad": 0.2})
    assert searched(world).best() == ("erm", LENGTHS[0])
    world = World({"erm": (0.8, 0.6, 0.5), "clean-only": 0.6, "good": 0.7, "careful": (0.5, 0.7, 0.95), "bad": 0.2})
    assert searched(world).best() == ("careful", LENGTHS[2])


def test_of_equals_the_simplest_is_taken_at_full_length():
    assert searched(World(dict.fromkeys(["erm", "clean-only", "good", "careful", "bad"], 0.7))).best() == ("erm", 1.0)


def test_what_learns_from_trusted_examples_is_judged_on_those_that_it_did_not_get():
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2})
    searched(world)
    for trial in world.trials:
        assert trial.fold[1] == (FOLDS if trial.candidate.uses_trusted else 1)
    whole = {t.fold for t in world.trials if t.candidate.name == "careful" and t.length == 1}
    assert whole == {(1, 3), (2, 3), (3, 3)}


@pytest.mark.parametrize("times", [2.0, 4.0, 10.0])
def test_the_budget_is_kept_but_for_what_all_is_compared_with(times):
    costs = {"erm": 1.0, "clean-only": 0.1, "good": 1.0, "careful": 4.0, "bad": 3.0}
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2}, costs)
    search = searched(world, times)
    needed = sum(LENGTHS) * (costs["erm"] + FOLDS * costs["clean-only"])
    assert search.plain_seconds == pytest.approx(1.0)
    # a trial whose cost is not known yet may cost more than plain training
    assert search.seconds <= max(times, needed) + LENGTHS[0] * 4
    tried = {trial.candidate.name for trial in world.trials}
    assert {"erm", "clean-only"} <= tried


def test_the_better_ones_get_the_longer_trainings():
    costs = {"clean-only": 0.1, "good": 2.0, "bad": 2.0, "careful": 2.0}
    world = World({"erm": 0.5, "clean-only": 0.4, "good": 0.9, "careful": 0.45, "bad": 0.2}, costs)
    searched(world, 5.0)
    longest = {name: max((t.length for t in world.trials if t.candidate.name == name), default=0) for name in costs}
    assert longest["good"] == 1.0 > longest["bad"]


def test_without_trusted_examples_all_are_judged_on_one_part():
    world = World({"erm": 0.5, "good": 0.7, "bad": 0.2})
    some = [candidate for candidate in CANDIDATES if not candidate.uses_trusted]
    search = Search(some, world.run, SIZE // FOLDS, False, lambda plain: math.inf)
    search.run = lambda trial: (lambda o: Outcome(np.arange(len(o.right)), o.right, o.seconds))(world.run(trial))
    search.go()
    assert {trial.fold for trial in world.trials} == {(1, FOLDS)}
    assert search.best() == ("good", 1.0)


def test_a_trial_is_made_once():
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2})
    search = searched(world)
    before = len(world.trials)
    search.go()
    assert len(world.trials) == before == len(set(world.trials))
