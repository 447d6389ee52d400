"""Finding the way to train that suits some data, and training with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
import numpy as np

from reweight_core import (
    PreparedData,
    RunConfig,
    UserError,
    build_observers,
    configure,
    known_options,
    load_data,
    locked,
    write_json,
)
from reweight_fit.candidates import PLAIN, Facts, candidates_for, refuse_chosen
from reweight_fit.folders import Folders
from reweight_fit.report import Report, report_of
from reweight_fit.search import FOLDS, Outcome, Search, Trial, Way
from reweight_fit.trials import Trials, config_of, processes_for

if TYPE_CHECKING:
    from reweight_core import Dataset, FinishedRun

REPORT = "fit.json"
"""File of the report."""

PLANTED_SHARE = 5
"""Of the trusted examples that a training learns from itself, one in so many is planted."""

MOST_PLANTED = 50
"""One in so many training examples is planted at most: every second one has a wrong label."""

FEWEST_PLANTED = 10
"""Planted examples below which they say too little."""

LEAST_PLAIN = 2.0
"""Seconds that a plain training counts at least in a budget: about what its program takes to start."""


class Watcher(Protocol):
    """Is told how a search gets on."""

    def begin(self, trials: Sequence[Trial]) -> None:
        """Trials are made, or recalled, in this order."""

    def ended(self, trial: Trial, outcome: Outcome, accuracy: float) -> None:
        """The next of them is over; it predicts this share of its examples right."""

    def planned(self, seconds: float) -> None:
        """All trials together may take so long."""

    def over(self) -> None:
        """All trials are over; the last training follows."""


@attrs.frozen(eq=False)
class Fitted:
    """What was found.

    Attributes:
        run: the finished run.
        report: what was tried, and what it says.
    """

    run: FinishedRun
    report: Report


def fit(
    out: Path | str,
    *,
    budget: str = "10x",
    candidates: Sequence[str] | None = None,
    judge_by: Literal["auto", "accuracy", "balanced_accuracy"] = "auto",
    jobs: int = 1,
    watcher: Watcher | None = None,
    observers: Sequence[object] = (),
    dataset: Dataset | None = None,
    **options: Any,
) -> Fitted:
    """Find the way to train that suits the data, and train with it (``reweight fit``).

    Trials are judged on trusted examples that they did not learn from; where there are none, on a part of the training
    set with its observed labels. Called again with the same folder, it keeps the trials that were made.

    Args:
        out: folder of the run. Trials are kept beside it, in ``OUT.search``.
        budget: what the trials may take: a multiple of a plain training (``10x``), which counts 2 seconds at least, or
            minutes (``30m``).
        candidates: names of what is tried beside plain training and the trusted examples alone; None for all.
        judge_by: whether classes count as they are frequent in the training set, or all the same (balanced accuracy);
            ``auto``: all the same where they are unbalanced, or where there are trusted examples, because wrong labels
            change how frequent a class looks, in favour of what repeats them.
        jobs: trials that are made at a time, each in a process of its own.
        watcher: is told how the search gets on.
        observers: hear of the last training (`reweight_core.train`).
        dataset: what the options name, if it is at hand.
        **options: options of ``reweight train`` (underscores) but those that choose the method and the validation set.

    Raises:
        UserError: before any training, for a wrong option or a folder that is taken.
    """
    refuse_chosen(options)
    plant = options.pop("plant", None)
    folders, total = Folders.of(out), budget_of(budget)
    asked: RunConfig = configure(**{"test_from": "none"} | options)
    if asked.processes > 1:
        raise UserError("--processes: fit trains every network in one process; --jobs makes several at a time")
    # a library that is missing is told now, and not by the last training
    build_observers(asked)
    loaded = load_data(asked, dataset).dataset
    if loaded.test is None:
        # estimates come from elsewhere
        options = {"test_from": "none"} | options
    plain: RunConfig = configure(**options)
    data = load_data(plain, loaded)
    _refuse_too_few(data, options)
    facts = Facts(data, options, plain.model)
    labels = data.train.labels if data.meta is None else data.meta.labels
    by_class = judge_by == "balanced_accuracy" or (judge_by == "auto" and (facts.unbalanced or facts.trusted > 0))
    chosen = candidates_for(candidates, facts)
    without = known_options(RunConfig, {**options, "observe": ()})
    unobserved = {name: value for name, value in options.items() if name in without}

    folders.begin(plain, data.fingerprint, chosen)
    elsewhere = processes_for(unobserved, folders.trials, jobs, dataset)
    with locked(folders.trials, f"--out {out}"), elsewhere as processes:
        trials = Trials(unobserved, folders.trials, data, processes)

        def run(some: Sequence[Trial]) -> Iterator[Outcome]:
            if watcher is not None:
                watcher.begin(some)
            for trial, outcome in zip(some, trials.run(some), strict=True):
                if watcher is not None:
                    watcher.ended(trial, outcome, float(np.mean(outcome.predicted == labels[outcome.positions])))
                    if trial.way == Way(PLAIN):
                        watcher.planned(total(outcome.seconds))
                yield outcome

        search = Search(
            candidates=chosen,
            networks=[network.name for network in facts.networks()],
            trusted_networks=[network.name for network in facts.trusted_networks()],
            labels=labels,
            weights=weights_of(labels, np.ones(len(facts.counts)) if by_class else facts.counts),
            has_trusted=data.meta is not None,
            budget=total,
            run=run,
            at_once=jobs,
        )
        search.go()
        if watcher is not None:
            watcher.over()
        report = report_of(search, data.dataset.classes, facts.counts)
        # what was found is not lost if the last training is
        write_json(folders.trials / REPORT, report.as_json())
        best = search.best()
        if plant is None:
            uses_trusted = next(candidate.uses_trusted for candidate in chosen if candidate.name == best.candidate)
            plant = planted(facts.trusted, len(data.train), uses_trusted)
        last = config_of(best, options, data, out=folders.out, plant=plant)
        finished = folders.train(last, observers, data)
        write_json(folders.out / REPORT, report.as_json())
    return Fitted(finished, report)


def planted(trusted: int, examples: int, uses_trusted: bool) -> int:
    """Return how many trusted examples are planted in the last training, so that its audit can be measured.

    Args:
        trusted: number of trusted examples.
        examples: number of training examples.
        uses_trusted: whether the training learns from trusted ones itself.
    """
    spare = trusted // PLANTED_SHARE if uses_trusted else trusted
    count = min(spare, examples // MOST_PLANTED)
    return count if count >= FEWEST_PLANTED else 0


def _refuse_too_few(data: PreparedData, options: Mapping[str, Any]) -> None:
    """Refuse data that cannot be judged by.

    Raises:
        UserError: if there are fewer trusted examples than parts, or a class would be lost with what is held out.
    """
    if data.meta is None:
        try:
            load_data(configure(**options, val_fold=f"1/{FOLDS}"), data.dataset)
        except UserError as error:
            raise UserError(
                f"without trusted examples (--meta-size) 1/{FOLDS} of the training set is held out: {error}"
            ) from error
    elif len(data.meta) < FOLDS:
        raise UserError(
            f"there are only {len(data.meta)} trusted examples, too few to judge by: give {FOLDS} at least (some "
            "twenty say something), or none at all (--meta-size 0)"
        )


def weights_of(labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return weights with which classes have certain shares, (k,), of mean 1.

    Args:
        labels: of the examples, int64 (k,).
        shares: what each class is to count, (C,), in any unit.
    """
    counts = np.bincount(labels, minlength=len(shares))
    weights = (shares / np.maximum(counts, 1))[labels]
    return weights / weights.mean()


def budget_of(text: str) -> Callable[[float], float]:
    """Return the seconds that ``--budget`` allows, from the seconds of a plain training.

    Raises:
        UserError: if the text is no budget.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(x|m)", text)
    if found is None or not 0 < float(found[1]) < math.inf:
        raise UserError(f"--budget {text}: must be a multiple of plain training, e.g. 10x, or minutes, e.g. 30m")
    number = float(found[1])
    return (lambda plain: number * max(plain, LEAST_PLAIN)) if found[2] == "x" else (lambda plain: 60 * number)
