"""Finding the way to train that suits some data, and training with it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
import numpy as np

from reweight_core import RunConfig, UserError, as_values, configure, load_data, locked, resume, train, write_json
from reweight_fit.candidates import PLAIN, Facts, candidates_for
from reweight_fit.report import Report, report_of
from reweight_fit.search import Outcome, Search, Trial, Way
from reweight_fit.trials import Trials, config_of, processes_for

if TYPE_CHECKING:
    from reweight_core import FinishedRun

CHOSEN = ("method", "loss", "with", "preset", "val_size", "val_labels", "val_fold", "out")
"""Options of train that are not the user's here."""

HARMLESS = ("workers", "checkpoint_every", "observe")
"""Options that change nothing of what comes of a trial."""

MADE_WITH = "made-with.json"
"""File that says what the trials in a folder are made with."""


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
    **options: Any,
) -> Fitted:
    """Find the way to train that suits the data, and train with it (``reweight fit``).

    Trials are judged on trusted examples that they did not learn from; where there are none, on a part of the training
    set with its observed labels. Called again with the same folder, it keeps the trials that were made.

    Args:
        out: folder of the run. Trials are kept beside it, in ``OUT.search``.
        budget: what the trials may take: a multiple of a plain training (``10x``) or minutes (``30m``).
        candidates: names of what is tried beside plain training and the trusted examples alone; None for all.
        judge_by: whether classes count as they are frequent in the training set, or all the same (balanced accuracy);
            ``auto``: all the same where they are unbalanced.
        jobs: trials that are made at a time, each in a process of its own.
        watcher: is told how the search gets on.
        observers: hear of the last training (`reweight_core.train`).
        **options: options of ``reweight train`` (underscores) but those that choose the method and the validation set.

    Raises:
        UserError: before any training, for a wrong option or a folder that is taken.
    """
    for name in CHOSEN:
        if name in options:
            raise UserError(f"--{name.replace('_', '-')}: is chosen by fit; leave it out, or use reweight train")
    out, total = Path(out), budget_of(budget)
    folder = out.with_name(f"{out.name}.search")
    is_ours = (folder / MADE_WITH).exists() and not (out / "summary.json").exists()
    if out.exists() and any(out.iterdir()) and not is_ours:
        raise UserError(f"--out {out}: is there already and not empty; give another folder")
    plain: RunConfig = configure(**options)
    data = load_data(plain)
    facts = Facts(data, options, plain.model)
    labels = data.train.labels if data.meta is None else data.meta.labels
    by_class = judge_by == "balanced_accuracy" or (judge_by == "auto" and facts.unbalanced)
    chosen = candidates_for(candidates, facts)

    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"--out {out}"), processes_for(options, folder, jobs) as processes:
        _refuse_others(folder, plain, data.fingerprint)
        trials = Trials(options, folder, data, processes)

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
        )
        search.go()
        if watcher is not None:
            watcher.over()
        report = report_of(search, data.dataset.classes, facts.counts)
        finished = _trained(config_of(search.best(), options, data, out=out), observers)
        write_json(out / "fit.json", report.as_json())
    return Fitted(finished, report)


def _trained(config: RunConfig, observers: Sequence[object]) -> FinishedRun:
    """Train, or go on with what an interrupted call began.

    Raises:
        UserError: if it began something else.
    """
    out = config.out
    assert out is not None, "given to fit"
    if not (out / "checkpoints").exists():
        if out.exists():
            shutil.rmtree(out)
        return train(config, observers)
    began = json.loads((out / "config.json").read_text(encoding="utf-8"))["options"]
    if began != json.loads(json.dumps(as_values(config))):
        raise UserError(
            f"--out {out}: holds an unfinished run of another way to train; delete it, or give another folder"
        )
    return resume(out, observers)


def _refuse_others(folder: Path, plain: RunConfig, fingerprint: str) -> None:
    """Keep what the trials in a folder are made with, and refuse trials of other options or data.

    Raises:
        UserError: if there are such.
    """
    file = folder / MADE_WITH
    options = {name: value for name, value in as_values(plain).items() if name not in HARMLESS}
    made_with = json.loads(json.dumps({"options": options, "data": fingerprint}))
    if not file.exists():
        write_json(file, made_with)
        return
    kept = json.loads(file.read_text(encoding="utf-8"))
    if kept != made_with:
        names = sorted({*kept["options"], *made_with["options"]})
        changed = [name for name in names if kept["options"].get(name) != made_with["options"].get(name)]
        what = f"--{changed[0].replace('_', '-')}" if changed else "the data"
        raise UserError(f"{folder}: has trials with another {what}; give another --out, or delete the folder")


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
    return (lambda plain: number * plain) if found[2] == "x" else (lambda plain: 60 * number)
