"""Making a trial: a training without some examples, and what its network says of these."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from reweight_core import (
    Dataset,
    DivergedError,
    Examples,
    FinishedRun,
    PreparedData,
    RunConfig,
    Split,
    UserError,
    configure,
    in_fold,
    load_data,
    train,
    usable_cpus,
    write_json,
    written_whole,
)
from reweight_fit.candidates import CANDIDATES, DEFAULT, NETWORKS, PASSES, PLAIN, TRUSTED
from reweight_fit.search import Outcome, Trial, Way

BATCH_SIZE = 250
"""Examples in one batch of the judging; it changes the speed, not the result."""

TELLS_WRONG_LABELS = "posterior-label"
"""The candidate whose weights are the probabilities that the observed labels are right."""


@attrs.frozen(eq=False)
class Trials:
    """Makes trials in a folder, and keeps what came of them there.

    Args:
        given: the user's options of ``reweight train``.
        folder: where the outcomes are kept; those that are there already are not made again.
        data: the data of a run with these options.
        processes: where trials are made, several at a time, or None for here.
    """

    given: Mapping[str, Any]
    folder: Path
    data: PreparedData
    processes: Executor | None = None

    def run(self, trials: Sequence[Trial]) -> Iterator[Outcome]:
        """Make trials, or recall them, in their order."""
        if self.processes is None:
            yield from map(self.one, trials)
            return
        try:
            yield from self.processes.map(_in_process, trials)
        except BrokenProcessPool as error:
            raise UserError(
                "--jobs: a process was killed, or could not begin; there may be too little memory for so many. In a "
                "script, call fit below `if __name__ == '__main__':`"
            ) from error

    def one(self, trial: Trial) -> Outcome:
        """Make a trial, or recall it if it is kept whole."""
        return self._recalled(trial) or self._made(trial)

    def _file(self, trial: Trial) -> Path:
        way = trial.way
        return self.folder / f"{way.candidate}-{way.network}-{way.length:.3f}-{trial.fold[0]}of{trial.fold[1]}.json"

    def _recalled(self, trial: Trial) -> Outcome | None:
        file = self._file(trial)
        if not file.exists():
            return None
        try:
            # the arrays were written first
            kept = json.loads(file.read_text(encoding="utf-8"))
            arrays = load_file(file.with_suffix(".safetensors"))
            outcome = Outcome(
                arrays["positions"], arrays["logits"], float(kept["seconds"]), kept["wrong"], kept["problem"]
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
            return None
        fits = np.array_equal(outcome.positions, self._positions(trial))
        return outcome if fits and outcome.logits.shape == (len(outcome.positions), self._classes) else None

    def _positions(self, trial: Trial) -> np.ndarray:
        """Return which of the examples that are judged on are left out of a trial."""
        seed: int = configure(**self.given).seed
        return np.flatnonzero(in_fold(self._judged_on.labels, trial.fold, seed))

    @property
    def _judged_on(self) -> Split:
        return self.data.train if self.data.meta is None else self.data.meta

    @property
    def _classes(self) -> int:
        return len(self.data.dataset.classes)

    def _made(self, trial: Trial) -> Outcome:
        file = self._file(trial)
        folder = file.with_suffix("")
        if folder.exists():
            shutil.rmtree(folder)
        started = time.perf_counter()
        positions = self._positions(trial)
        wrong, problem, lasts = None, None, True
        logits = np.full((len(positions), self._classes), np.nan, np.float32)
        more = {"out": folder, "val_fold": "{}/{}".format(*trial.fold), "checkpoint_every": "never", "observe": ()}
        with warnings.catch_warnings():
            # short trainings warn of what is meant for long ones
            warnings.simplefilter("ignore")
            try:
                config = config_of(trial.way, self.given, self.data, **more)
                # so that nothing of a training can depend on what it is judged on
                data = attrs.evolve(load_data(config, self.data.dataset), val=None, test=None)
                finished = train(config, data=data)
            except UserError as error:
                if (trial.way.candidate, trial.way.network) == (PLAIN, DEFAULT.name):
                    raise
                # another cause than the training itself may be gone in the next call
                problem, lasts = str(error), isinstance(error, DivergedError)
            else:
                logits = self._logits(finished, self._judged_on.take(positions), config)
                wrong = _wrong(finished, data) if trial.way.candidate == TELLS_WRONG_LABELS else None
        seconds = time.perf_counter() - started
        if lasts:
            with written_whole(file.with_suffix(".safetensors")) as partial:
                save_file({"positions": positions, "logits": logits}, partial)
            write_json(file, {"seconds": seconds, "wrong": wrong, "problem": problem})
        if folder.exists():
            shutil.rmtree(folder)
        return Outcome(positions, logits, seconds, wrong, problem)

    def _logits(self, finished: FinishedRun, split: Split, config: RunConfig) -> np.ndarray:
        """Return the logits of a run's network, float32 (k, C)."""
        parameter = next(finished.model.parameters())
        examples = Examples(split, self.data.dataset, parameter.device, parameter.dtype, "none")
        workers = usable_cpus() if config.workers is None else config.workers
        with torch.no_grad():
            found = [finished.model(batch.inputs) for batch in examples.in_order(BATCH_SIZE, workers)]
        return torch.cat(found).float().cpu().numpy()


_of_process: list[Trials] = []
"""The trials of a process that makes some of them."""


@contextmanager
def processes_for(
    given: Mapping[str, Any], folder: Path, jobs: int, dataset: Dataset | None = None
) -> Iterator[Executor | None]:
    """Keep processes for trials, each with the data and its share of the processors; None for one job.

    Args:
        given: the user's options of ``reweight train``.
        folder: where the outcomes are kept.
        jobs: how many.
        dataset: what the options name, where a process cannot load it.
    """
    if jobs == 1:
        yield None
        return
    threads = max(1, usable_cpus() // jobs)
    given = {"workers": threads, **given}
    # a process that was forked cannot use a GPU
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin_process, (given, folder, threads, dataset)) as processes:
        yield processes


def _begin_process(given: Mapping[str, Any], folder: Path, threads: int, dataset: Dataset | None) -> None:
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        # the first process has told them
        warnings.simplefilter("ignore")
        _of_process.append(Trials(given, folder, load_data(configure(**given), dataset)))


def _in_process(trial: Trial) -> Outcome:
    return _of_process[0].one(trial)


def _wrong(finished: FinishedRun, data: PreparedData) -> list[float | None]:
    """Return the share of each observed class that a run takes for wrongly labelled; None if it saw none of it."""
    samples = load_file(finished.folder / "samples.safetensors")
    seen, kept, labels = samples["visits"] > 0, samples["mean_weight"], data.train.labels
    of_classes = [kept[seen & (labels == c)] for c in range(len(data.dataset.classes))]
    return [1 - float(of_class.mean()) if len(of_class) else None for of_class in of_classes]


def config_of(way: Way, given: Mapping[str, Any], data: PreparedData, **more: Any) -> RunConfig:
    """Return the options of a training.

    Args:
        way: how it trains.
        given: the user's options.
        data: the data of a run with the user's options.
        more: further options.
    """
    candidate = next(candidate for candidate in CANDIDATES if candidate.name == way.candidate)
    trusted = 0 if data.meta is None else len(data.meta)
    learns_from = trusted if candidate.name == TRUSTED else len(data.train)
    options = {**NETWORKS[way.network].options(learns_from), **given, **candidate.options}
    full: RunConfig = configure(**options)
    if full.optimizer == "sgd":
        options["lr"] = candidate.lr_factor * full.lr
    if candidate.name == TRUSTED:
        of_epoch = -(-len(data.train) // full.batch_size)
        steps = full.steps or full.epochs * of_epoch
        most = max(PASSES, PASSES * trusted // min(full.batch_size, trusted))
        options["steps"] = max(1, round(way.length * min(steps, most)))
    elif full.steps is not None:
        options["steps"] = max(1, round(way.length * full.steps))
    else:
        options["epochs"] = max(1, round(way.length * full.epochs))
    return configure(**options | more)
