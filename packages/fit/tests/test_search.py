"""The search against made-up ways to train, whose accuracies are known."""

import math

import numpy as np
import pytest

from reweight_fit.candidates import Candidate
from reweight_fit.search import ENOUGH, FEW, FOLDS, LENGTHS, SHORTEST, Outcome, Search, Trial, Way

SIZE = 300
ALL_LENGTHS = (SHORTEST, *LENGTHS)

CANDIDATES = [
    Candidate("erm", {"method": "erm"}),
    Candidate("clean-only", {"method": "clean-only"}, uses_trusted=True),
    Candidate("good", {"method": "good"}, cost=2.0),
    Candidate("careful", {"method": "careful"}, uses_trusted=True, cost=2.0),
    Candidate("bad", {"method": "bad"}, cost=2.0),
]


class World:
    """Gives outcomes by chance, and remembers the trials."""

    def __init__(self, accuracies, costs=None, failing=(), size=SIZE):
        self.accuracies, self.costs, self.failing = accuracies, costs or {}, failing
        self.draws = np.random.default_rng(0).random(size)
        self.trials = []

    def run(self, trials):
        for trial in trials:
            self.trials.append(trial)
            way, (number, parts) = trial.way, trial.fold
            share = self.accuracies.get((way.candidate, way.network), self.accuracies.get(way.candidate))
            share = share[ALL_LENGTHS.index(way.length)] if isinstance(share, tuple) else share
            positions = np.arange(len(self.draws))[number - 1 :: parts]
            problem = "diverged" if way.candidate in self.failing else None
            right = (self.draws[positions] < share).astype(np.float32)
            logits = np.stack([right, 1 - right], 1)
            if problem is not None:
                logits[:] = np.nan
            yield Outcome(positions, logits, way.length * self.costs.get(way.candidate, 1.0), None, problem)


def searched(world, times=1000.0, has_trusted=True, candidates=CANDIDATES, networks=("default",), at_once=1):
    size = len(world.draws)
    search = Search(
        candidates=candidates,
        networks=networks,
        trusted_networks=networks[:1],
        labels=np.zeros(size, np.int64),
        weights=np.ones(size),
        has_trusted=has_trusted,
        budget=lambda plain: times * plain,
        run=world.run,
        at_once=at_once,
    )
    search.go()
    return search


def test_the_best_way_is_found_and_its_length():
    world = World({"erm": (0.8, 0.6, 0.5), "clean-only": 0.6, "good": 0.7, "careful": 0.75, "bad": 0.2})
    assert searched(world).best() == Way("erm", length=SHORTEST)
    world = World({"erm": (0.8, 0.6, 0.5), "clean-only": 0.6, "good": 0.7, "careful": (0.5, 0.7, 0.95), "bad": 0.2})
    assert searched(world).best() == Way("careful")


def test_of_equals_the_simplest_is_taken_at_full_length():
    assert searched(World(dict.fromkeys(["erm", "clean-only", "good", "careful", "bad"], 0.7))).best() == Way("erm")


def test_the_network_that_is_best_for_plain_training_is_that_of_all_others():
    accuracies = {"erm": 0.5, ("erm", "small"): 0.8, "clean-only": 0.6, "good": 0.7, "careful": 0.75, "bad": 0.2}
    world = World(accuracies | {("good", "small"): 0.95})
    search = searched(world, networks=("default", "small"))
    assert search.network == "small" and search.best() == Way("good", "small")
    assert {trial.way.network for trial in world.trials if trial.way.candidate == "bad"} == {"small"}
    assert searched(World(accuracies | {("erm", "small"): 0.5}), networks=("default", "small")).network == "default"


def test_what_learns_from_trusted_examples_is_judged_on_those_that_it_did_not_get():
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2})
    searched(world)
    for trial in world.trials:
        assert trial.fold[1] == (FOLDS if trial.way.candidate in ("clean-only", "careful") else 1)
    whole = {t.fold for t in world.trials if t.way == Way("careful")}
    assert whole == {(1, 3), (2, 3), (3, 3)}


@pytest.mark.parametrize("times", [1.0, 1.8, 2.5, 4.0, 10.0, 20.0])
def test_the_budget_is_kept_but_for_what_all_is_compared_with(times):
    costs = {"clean-only": 0.1, "good": 2.0, "careful": 2.0, "bad": 2.0}
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2}, costs)
    search = searched(world, times)
    needed = sum(ALL_LENGTHS) + FOLDS * costs["clean-only"]
    assert search.plain_seconds == pytest.approx(1.0)
    assert search.seconds <= max(times, needed) + 1e-9
    assert {"erm", "clean-only"} <= {trial.way.candidate for trial in world.trials}


def test_trials_at_the_same_time_are_those_that_one_after_the_other_are_made():
    accuracies = {"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2}
    costs = {"clean-only": 0.1, "good": 2.0, "careful": 2.0, "bad": 2.0}
    for times in (4.0, 8.0, 20.0):
        worlds = [World(accuracies, costs) for _ in range(2)]
        for world, at_once in zip(worlds, (1, 4), strict=True):
            searched(world, times, at_once=at_once)
        assert worlds[0].trials == worlds[1].trials


def test_what_takes_longer_than_was_thought_is_not_continued_beyond_the_budget():
    costs = {"clean-only": 0.1, "good": 2.0, "careful": 9.0, "bad": 2.0}
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2}, costs)
    searched(world, 12.0)
    assert max(trial.way.length for trial in world.trials if trial.way.candidate == "careful") == LENGTHS[0]


def test_without_a_method_of_the_trusted_examples_alone_it_goes_on():
    world = World({"erm": 0.5, "good": 0.7, "careful": 0.9})
    some = [candidate for candidate in CANDIDATES if candidate.name in ("erm", "good", "careful")]
    assert searched(world, candidates=some).best() == Way("careful")


def test_the_better_ones_get_the_longer_trainings():
    costs = {"clean-only": 0.1, "good": 2.0, "bad": 2.0, "careful": 2.0}
    world = World({"erm": 0.5, "clean-only": 0.4, "good": 0.9, "careful": 0.45, "bad": 0.2}, costs)
    searched(world, 5.5)
    longest = {name: max((t.way.length for t in world.trials if t.way.candidate == name), default=0) for name in costs}
    assert longest["good"] == 1.0 > longest["bad"]


def test_what_fails_is_not_tried_again_and_does_not_win():
    world = World({"erm": 0.5, "clean-only": 0.4, "good": 0.9, "careful": 0.45, "bad": 0.2}, failing=("good",))
    assert searched(world).best() == Way("erm")
    assert sum(trial.way.candidate == "good" for trial in world.trials) == 1


def test_without_trusted_examples_all_are_judged_on_one_part_by_observed_labels():
    world = World({"erm": 0.5, "good": 0.7, "bad": 0.2})
    some = [candidate for candidate in CANDIDATES if not candidate.uses_trusted]
    assert searched(world, math.inf, has_trusted=False, candidates=some).best() == Way("good")
    assert {trial.fold for trial in world.trials} == {(1, FOLDS)}


def test_few_trusted_examples_alone_are_judged_in_more_parts():
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2}, size=FEW - 1)
    searched(world)
    assert {t.fold[1] for t in world.trials if t.way.candidate == "clean-only"} == {2 * FOLDS}
    assert {t.fold[1] for t in world.trials if t.way.candidate == "careful"} == {FOLDS}


def test_of_many_trusted_examples_one_part_is_enough():
    accuracies = {"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2}
    world = World(accuracies, size=ENOUGH)
    assert searched(world).best() == Way("careful")
    assert {t.fold for t in world.trials if t.way.candidate == "careful"} == {(1, 3)}


def test_a_trial_is_made_once():
    world = World({"erm": 0.5, "clean-only": 0.6, "good": 0.7, "careful": 0.9, "bad": 0.2})
    search = searched(world)
    before = len(world.trials)
    search.go()
    assert len(world.trials) == before == len(set(world.trials))
    assert Trial(Way("erm"), (1, 1)) in world.trials
