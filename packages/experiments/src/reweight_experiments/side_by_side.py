"""Runs and sweeps side by side: what their options differ in, and what came of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core import DataConfig
from reweight_experiments.kept_runs import KeptRun, runs_in
from reweight_experiments.report import Report, Spread

FIGURES = {
    "epochs trained": ("epochs", 0),
    "test accuracy": ("test_accuracy", 4),
    "balanced accuracy": ("test_balanced_accuracy", 4),
    "macro-F1": ("test_macro_f1", 4),
    "final network": ("final_test_accuracy", 4),
    "validation accuracy": ("val_accuracy", 4),
    "AUROC of weights": ("noise_auroc", 4),
    "seconds": ("seconds", 1),
}
"""Titles of the figures -> name of the figure, and its digits."""

SIZES = {"train_size": "training", "meta_size": "trusted", "val_size": "validation", "test_size": "test"}
"""Sizes in config.json -> of what examples."""

TELLING = 0.02
"""A balanced accuracy or macro-F1 that differs by less from the accuracy says little more."""

FEW = 4
"""So many runs have a column each; more have a row each."""


@attrs.frozen(eq=False)
class Subject:
    """A run, or the seeds of a cell of a sweep.

    Attributes:
        name: how it is told from the others.
        folder: where it is.
        runs: the runs.
        missing: how many further runs of the cell have no folder.
    """

    name: str
    folder: Path
    runs: Sequence[KeptRun]
    missing: int = 0

    @property
    def finished(self) -> int:
        """The number of its runs that are finished."""
        return sum(run.summary is not None for run in self.runs)

    @property
    def failed(self) -> int:
        """The number of its runs that ended before their end."""
        return sum(run.failure is not None for run in self.runs)

    @property
    def unfinished(self) -> int:
        """The number of its other runs that are not finished."""
        return len(self.runs) - self.finished - self.failed

    @property
    def planned(self) -> int:
        """The number of all its runs."""
        return len(self.runs) + self.missing

    def option(self, name: str) -> str:
        """Return the values of an option as one text, ``-`` where there is no such option."""
        texts = dict.fromkeys(_text(run.options[name]) if name in run.options else "-" for run in self.runs)
        return ", ".join(texts) or "-"

    def examples(self) -> str:
        """Return the sizes of its data and where known the beginning of their fingerprint."""
        texts = dict.fromkeys(_data_text(run.data) for run in self.runs)
        return ", ".join(texts) or "-"

    def spread(self, figure: str) -> Spread:
        """Describe a figure over its finished runs, or if none is finished over the others."""
        finished = [run for run in self.runs if run.summary is not None]
        return Spread.of(run.figure(figure) for run in finished or self.runs)

    def mean_of(self, figure: str) -> float:
        """Return the mean of a figure, NaN where there is none."""
        mean = self.spread(figure).mean
        return math.nan if mean is None else mean

    @property
    def health(self) -> Counter[str]:
        """The problems that its finished runs told of, and how many of them did."""
        return Counter(problem["problem"] for run in self.runs for problem in (run.summary or {}).get("health", ()))

    def states(self) -> list[str]:
        """Say how far what is not finished is."""
        if self.planned > 1:
            counts = {"failed": self.failed, "unfinished": self.unfinished, "missing": self.missing}
            found = ", ".join(f"{count} of {self.planned} runs {state}" for state, count in counts.items() if count)
            failures = [f"{run.folder.name} failed: {run.failure}" for run in self.runs if run.failure is not None]
            return [found, *failures] if found else []
        if not self.runs:
            return ["missing"]
        (run,) = self.runs
        if run.summary is not None:
            return []
        state = "unfinished" if run.failure is None else f"failed: {run.failure}"
        if not run.epochs:
            return [f"{state}, before its first epoch"]
        of = f" of {run.planned}" if run.planned else ""
        return [f"{state}; the figures are those of epoch {len(run.epochs)}{of}"]


@attrs.frozen(eq=False)
class SideBySide:
    """Runs and sweeps side by side.

    Attributes:
        subjects: runs, or the seeds of cells, in the order that they were given in.
        options: names of the options that differ.
    """

    subjects: Sequence[Subject]
    options: Sequence[str]

    def report(self) -> Report:
        """Return a table without what all lack: a column for each of up to four subjects, a row for each of more."""
        columns = {name: [one.option(name) for one in self.subjects] for name in self.options}
        if _data_differ([run for one in self.subjects for run in one.runs]):
            columns["examples"] = [one.examples() for one in self.subjects]
        devices = [", ".join(dict.fromkeys(run.device for run in one.runs)) or "-" for one in self.subjects]
        if len(set(devices)) > 1:
            columns["device"] = devices
        if any(one.planned > 1 for one in self.subjects):
            columns["n"] = [str(one.finished) for one in self.subjects]
        figures = {
            title: [one.spread(name).text(digits) for one in self.subjects] for title, (name, digits) in FIGURES.items()
        }
        columns |= {title: texts for title, texts in figures.items() if set(texts) != {"-"}}
        names = [one.name for one in self.subjects]
        heading = ["Mean ± sample standard deviation over n finished runs."] if "n" in columns else []
        if len(names) <= FEW:
            rows = [[title, *texts] for title, texts in columns.items()]
            return Report(heading, ["", *names], rows, self._remarks(), unbroken=["", *names])
        for title in self._not_telling():
            columns.pop(title, None)
        rows = [list(row) for row in zip(names, *columns.values(), strict=True)]
        return Report(heading, ["run", *columns], rows, self._remarks(), unbroken=["run", "n", *figures])

    def _remarks(self) -> list[str]:
        """Say what is not finished, and which runs told of a problem."""
        lines = [f"{one.name}: {state}" for one in self.subjects for state in one.states()]
        by_problem: dict[str, list[str]] = {}
        for one in self.subjects:
            for problem, count in one.health.items():
                times = f" ({count} runs)" if len(one.runs) > 1 else ""
                by_problem.setdefault(problem, []).append(f"{one.name}{times}")
        return [
            *lines,
            *(f"{problem}: {', '.join(names)} (health in summary.json)" for problem, names in by_problem.items()),
        ]

    def _not_telling(self) -> list[str]:
        """Name columns that a table of rows can do without: the length if all have one, figures like the accuracy."""
        found = ["epochs trained"] if len({one.mean_of("epochs") for one in self.subjects}) == 1 else []
        for title in ("balanced accuracy", "macro-F1"):
            name = FIGURES[title][0]
            differences = [one.mean_of(name) - one.mean_of("test_accuracy") for one in self.subjects]
            if not any(abs(difference) >= TELLING for difference in differences):
                found.append(title)
        return found

    def as_json(self) -> list[dict[str, Any]]:
        """Return the same as JSON values, figures unrounded; of one run the deviation is null."""
        return [
            {
                "name": one.name,
                "folder": str(one.folder),
                "n": one.finished,
                "unfinished": one.unfinished,
                "failed": {run.folder.name: run.failure for run in one.runs if run.failure is not None},
                "missing": one.missing,
                "data": _only([dict(run.data) for run in one.runs]),
                "options": {name: _only([run.options.get(name) for run in one.runs]) for name in self.options},
                **{
                    name: {"mean": spread.mean, "sd": spread.deviation}
                    for name, _ in FIGURES.values()
                    for spread in [one.spread(name)]
                },
                "health": dict(one.health),
            }
            for one in self.subjects
        ]

    def plot(self, file: Path | str) -> None:
        """Draw the epochs into a .svg, .png or .pdf (`compare_plot.plot`)."""
        from reweight_experiments.compare_plot import plot

        plot(self.subjects, Path(file))


def compare(*folders: Path | str) -> SideBySide:
    """Put runs and sweeps side by side (``reweight compare``).

    Args:
        folders: of runs, finished or not, of sweeps and of their cells. The seeds of a cell are one subject.

    Raises:
        UserError: if a folder holds no run, or one that cannot be read.
    """
    found = {path.resolve(): (path, kept) for folder in folders for path, kept in runs_in(Path(folder)).items()}
    names = [path.name for path, _ in found.values()]
    subjects = [
        Subject(path.name if names.count(path.name) == 1 and path.name else str(path), path, kept.runs, kept.missing)
        for path, kept in found.values()
    ]
    return SideBySide(subjects, _differing(subjects))


def _differing(subjects: Sequence[Subject]) -> list[str]:
    """Name the options that say what tells the subjects apart.

    One that some of them do not have, because it is another method's, is named if it is not at its default.
    """
    runs = [run for one in subjects for run in one.runs]
    # seeds of a cell do not tell cells apart
    hidden = {"seed"} if any(one.planned > 1 for one in subjects) else set()
    if all(run.figure("epochs") == run.planned for run in runs if run.summary is not None):
        # the figure says the same
        hidden.add("epochs")
    named = []
    for name in dict.fromkeys(name for run in runs for name in run.options):
        having = [run for run in runs if name in run.options]
        values = {_text(run.options[name]) for run in having}
        unusual = any(_text(run.options[name]) != _text(run.defaults.get(name)) for run in having)
        if name not in hidden and (len(values) > 1 or (len(having) < len(runs) and unusual)):
            named.append(name)
    first = [name for name in ("method", "loss", "with", "data", "noise", "model") if name in named]
    return [*first, *(name for name in named if name not in first)]


def _data_differ(runs: Sequence[KeptRun]) -> bool:
    """Whether runs had other data though their options ask for the same ones."""
    names = [field.name for field in attrs.fields(DataConfig) if field.name != "seed"]
    by_options: dict[str, list[KeptRun]] = {}
    for run in runs:
        by_options.setdefault(repr([run.options.get(name) for name in names]), []).append(run)
    for alike in by_options.values():
        # other seeds draw other examples, of the same number
        prints = {(run.options.get("seed"), run.data.get("fingerprint")) for run in alike}
        sizes = {repr([run.data.get(name) for name in SIZES]) for run in alike}
        if len(sizes) > 1 or len(prints) > len({seed for seed, _ in prints}):
            return True
    return False


def _data_text(data: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{data[name]} {title}" for name, title in SIZES.items() if data.get(name))
    return f"{sizes} ({str(data.get('fingerprint', '-'))[:8]})"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _only(values: Sequence[Any]) -> Any:
    """Return the one value that there is, or all of them; None if there is none."""
    if not values:
        return None
    return values[0] if all(value == values[0] for value in values) else list(values)
