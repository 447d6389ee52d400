"""Results of a sweep or a reproduction: means and deviations over seeds, by cell, and the files that keep them."""

from __future__ import annotations

import csv
import io
import json
import statistics
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core import UserError, cpu_name, usable_cpus, write_json, write_text
from reweight_experiments.cells import Cell, PlannedRun
from reweight_experiments.claims import Outcome
from reweight_experiments.folder import read_json

FIGURES = ("test_accuracy", "test_accuracy_mean5", "test_balanced_accuracy", "noise_auroc", "seconds")
"""Figures of summary.json that are summed up."""

_WARNING = "Warning: "
"""What a warning in the log of a run begins with."""


@attrs.frozen
class Spread:
    """Several values: how many, their mean, and the sample standard deviation (n - 1), None where it has none."""

    n: int
    mean: float | None
    deviation: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """Describe the values that are known."""
        known = [value for value in values if value is not None]
        return cls(
            len(known),
            statistics.fmean(known) if known else None,
            statistics.stdev(known) if len(known) > 1 else None,
        )

    def text(self, digits: int) -> str:
        """Return the mean, and the deviation where there is one."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.{digits}f}" + ("" if self.deviation is None else f" ± {self.deviation:.{digits}f}")


@attrs.frozen
class RunResult:
    """What became of a run.

    Attributes:
        run: the run.
        figures: name in `FIGURES` -> that figure, None where it has none; empty if the run is not finished.
        error: why it failed, None if it did not.
        elsewhere: whether it is not over, and another process is at work on it.
        health: names of the problems that a finished run told of.
    """

    run: PlannedRun
    figures: Mapping[str, float | None]
    error: str | None = None
    elsewhere: bool = False
    health: Sequence[str] = ()

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return self.error is None and not self.elsewhere

    def as_json(self) -> dict[str, Any]:
        """Return its seed, folder and command, and its figures, its error or that it is not over, as JSON values."""
        run = {
            "seed": self.run.config.seed,
            "folder": str(self.run.folder),
            "command": ["reweight", *self.run.arguments],
        }
        if self.elsewhere:
            return run | {"elsewhere": True}
        return run | ({"error": self.error} if self.error is not None else {**self.figures, "health": [*self.health]})


@attrs.frozen
class CellResult:
    """What became of a cell.

    Attributes:
        cell: the cell.
        runs: what became of its runs, by rising seed.
        spreads: name in `FIGURES` -> that figure over the finished runs.
    """

    cell: Cell
    runs: Sequence[RunResult]
    spreads: Mapping[str, Spread]

    @property
    def finished(self) -> int:
        """The number of finished runs."""
        return sum(one.finished for one in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return its labels, spreads and runs as JSON values."""
        spreads = {name: {"mean": spread.mean, "sd": spread.deviation} for name, spread in self.spreads.items()}
        runs = [one.as_json() for one in self.runs]
        return {"name": self.cell.name, **self.cell.labels, "n": self.finished, **spreads, "runs": runs}

    def csv_row(self) -> dict[str, Any]:
        """Return its labels and spreads as the columns of a CSV file."""
        row: dict[str, Any] = {**self.cell.labels, "n": self.finished}
        for name, spread in self.spreads.items():
            row |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.deviation}
        return row


@attrs.frozen
class Report:
    """A result table for people.

    Attributes:
        heading: lines above the table.
        columns: titles.
        rows: as many texts a row as there are titles.
        remarks: lines below the table.
        unbroken: titles of columns whose texts a narrow screen must not break.
    """

    heading: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    remarks: Sequence[str]
    unbroken: Sequence[str]

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
        return "\n".join([*self.heading, "", *table, *(f"\n{remark}" for remark in self.remarks)]) + "\n"


@attrs.frozen(eq=False)
class Results:
    """The results of a sweep or of a reproduction.

    Attributes:
        folder: where its runs are, and results.md, results.csv and results.json.
        cells: what became of each cell.
        report: the table of results.md.
    """

    folder: Path
    cells: Sequence[CellResult]
    report: Report

    @property
    def errors(self) -> dict[str, str]:
        """Why runs failed, by the name of the run."""
        return errors_of(self.cells)

    @property
    def elsewhere(self) -> list[str]:
        """Names of runs that are not over, because other processes are at work on them."""
        return elsewhere_of(self.cells)


def collect(runs: Sequence[PlannedRun], outcome: Outcome) -> list[CellResult]:
    """Read the results of all runs.

    Args:
        runs: all runs of the sweep.
        outcome: which runs failed or are not over; the others are finished.

    Raises:
        UserError: if a finished run cannot be read.
    """
    by_cell: dict[Cell, list[RunResult]] = {}
    for run in runs:
        if run.name in outcome.errors:
            result = RunResult(run, {}, outcome.errors[run.name])
        elif run.name in outcome.elsewhere:
            result = RunResult(run, {}, elsewhere=True)
        else:
            result = _finished(run)
        by_cell.setdefault(run.cell, []).append(result)
    return [
        CellResult(cell, results, {name: Spread.of(one.figures.get(name) for one in results) for name in FIGURES})
        for cell, results in by_cell.items()
    ]


def _finished(run: PlannedRun) -> RunResult:
    summary = run.folder / "summary.json"
    content = read_json(summary)
    try:
        figures = {name: content[name] for name in FIGURES}
        return RunResult(run, figures, health=[found["problem"] for found in content.get("health", ())])
    except KeyError as missing:
        raise UserError(f"{summary}: has no {missing}; remove the folder") from None


def errors_of(cells: Sequence[CellResult]) -> dict[str, str]:
    """Return why runs failed, by the name of the run."""
    return {one.run.name: one.error for cell in cells for one in cell.runs if one.error is not None}


def elsewhere_of(cells: Sequence[CellResult]) -> list[str]:
    """Return the names of runs that other processes are at work on."""
    return [one.run.name for cell in cells for one in cell.runs if one.elsewhere]


def keep(out: Path, report: Report, cells: Sequence[CellResult], about: Mapping[str, Any]) -> Results:
    """Write results.md, results.csv and results.json, each whole or not at all.

    Args:
        out: the folder of the sweep.
        report: the table, without what is said of every sweep: which runs failed, and what the others were made with.
        cells: what became of each cell.
        about: what else results.json holds.

    Raises:
        UserError: if a file cannot be written, or a run has none of what it should have.
    """
    made_with = environments(cells)
    remarks = [*failures(errors_of(cells)), *unfinished_elsewhere(elsewhere_of(cells)), *warnings_of(cells)]
    remarks += [*logged_warnings(cells), *report.remarks, *map(_describe, made_with)]
    report = attrs.evolve(report, remarks=remarks)
    rows = [cell.csv_row() for cell in cells]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _warn_of_lost_cells(out, {cell.cell.name for cell in cells})
    try:
        write_text(out / "results.md", report.markdown())
        write_text(out / "results.csv", text.getvalue())
        write_json(out / "results.json", {**about, "made_with": made_with, "cells": [cell.as_json() for cell in cells]})
    except OSError as error:
        raise UserError(f"{out}: {error}; the runs are kept") from error
    return Results(out, cells, report)


def environments(cells: Sequence[CellResult]) -> list[dict[str, Any]]:
    """Return the distinct versions, plugins aside, and hardware of finished runs, with how many were made so.

    The name of a processor is that of this machine.

    Raises:
        UserError: if the config.json of a run cannot be read, or names no versions or no device.
    """
    made = [_environment(one.run.folder / "config.json") for cell in cells for one in cell.runs if one.finished]
    return [entry | {"runs": made.count(entry)} for place, entry in enumerate(made) if entry not in made[:place]]


def _environment(config: Path) -> dict[str, Any]:
    content = read_json(config)
    if not {"device", "versions"} <= content.keys():
        raise UserError(f"{config}: not that of a run; remove the folder")
    cpu = f"{cpu_name()}, {usable_cpus()} processors"
    return {"hardware": cpu if content["device"] == "cpu" else content["device"], "versions": content["versions"]}


def _describe(environment: Mapping[str, Any]) -> str:
    versions, runs = environment["versions"], environment["runs"]
    packages = f"reweight-core {versions['reweight-core']}, torch {versions['torch']} and Python {versions['python']}"
    return f"{runs} {'run' if runs == 1 else 'runs'} with {packages} on {environment['hardware']}."


def failures(errors: Mapping[str, str]) -> list[str]:
    """Return a line for each way in which runs failed."""
    by_error: dict[str, list[str]] = {}
    for name, error in errors.items():
        by_error.setdefault(error, []).append(name)
    return [f"failed: {', '.join(names)}: {error}" for error, names in by_error.items()]


def unfinished_elsewhere(names: Sequence[str]) -> list[str]:
    """Return a line on the runs that other processes are at work on, if there are any."""
    if not names:
        return []
    return [
        f"not finished yet: {', '.join(names)}: other processes are at work on {'it' if len(names) == 1 else 'them'}; "
        "the last one to end completes the table"
    ]


def warnings_of(cells: Sequence[CellResult]) -> list[str]:
    """Return a line for each kind of problem that finished runs told of."""
    by_problem: dict[str, list[str]] = {}
    for one in (one for cell in cells for one in cell.runs):
        for problem in one.health:
            by_problem.setdefault(problem, []).append(one.run.name)
    return [f"{problem}: {', '.join(names)} (health in summary.json)" for problem, names in by_problem.items()]


def logged_warnings(cells: Sequence[CellResult]) -> list[str]:
    """Return a line for each warning that finished runs wrote to their logs."""
    by_text: dict[str, list[str]] = {}
    for one in (one for cell in cells for one in cell.runs if one.finished):
        try:
            log = one.run.folder.with_name(f"{one.run.folder.name}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            # of a run that was made in another way
            continue
        for line in dict.fromkeys(log.splitlines()):
            if line.startswith(_WARNING):
                by_text.setdefault(line.removeprefix(_WARNING), []).append(one.run.name)
    return [f"warned: {', '.join(names)}: {text}" for text, names in by_text.items()]


def _warn_of_lost_cells(out: Path, cells: Collection[str]) -> None:
    """Say which cells of the table that is there are not in the new one."""
    try:
        kept = json.loads((out / "results.json").read_text(encoding="utf-8"))
        lost = [cell["name"] for cell in kept["cells"] if cell["name"] not in cells]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if lost:
        warnings.warn(
            f"{out}: the new table has no {', '.join(lost)}, which the one before had; their runs stay, and reweight "
            f"compare {out} shows all",
            stacklevel=3,
        )
