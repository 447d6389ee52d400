"""Results of a sweep or a reproduction: means and deviations over seeds, by cell, and the files that keep them."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core import UserError, cpu_name, usable_cpus, write_json, write_text
from reweight_experiments.cells import Cell, PlannedRun
from reweight_experiments.folder import read_json

FIGURES = ("test_accuracy", "test_accuracy_mean5", "noise_auroc", "seconds")
"""Figures of summary.json that are summed up."""


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
class CellResult:
    """What became of a cell.

    Attributes:
        cell: the cell.
        runs: for each run its seed, folder, command and either its figures or its error, ready for JSON.
        spreads: name in `FIGURES` -> that figure over the finished runs.
    """

    cell: Cell
    runs: Sequence[Mapping[str, Any]]
    spreads: Mapping[str, Spread]

    @property
    def finished(self) -> int:
        """The number of finished runs."""
        return sum("error" not in run for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return its labels, spreads and runs as JSON values."""
        spreads = {name: {"mean": spread.mean, "sd": spread.deviation} for name, spread in self.spreads.items()}
        return {"name": self.cell.name, **self.cell.labels, "n": self.finished, **spreads, "runs": list(self.runs)}

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
        return {
            f"{result.cell.name}/seed-{run['seed']}": run["error"]
            for result in self.cells
            for run in result.runs
            if "error" in run
        }


def collect(runs: Sequence[PlannedRun], errors: Mapping[str, str]) -> list[CellResult]:
    """Read the results of all runs.

    Args:
        runs: all runs of the sweep.
        errors: why a run failed, by its name; the others are finished.

    Raises:
        UserError: if a finished run cannot be read.
    """
    by_cell: dict[Cell, list[dict[str, Any]]] = {}
    for run in runs:
        entry: dict[str, Any] = {
            "seed": run.config.seed,
            "folder": str(run.folder),
            "command": ["reweight", *run.arguments],
        }
        if run.name in errors:
            entry["error"] = errors[run.name]
        else:
            summary = read_json(run.folder / "summary.json")
            try:
                entry |= {name: summary[name] for name in FIGURES}
            except KeyError as missing:
                raise UserError(f"{run.folder / 'summary.json'}: has no {missing}; remove the folder") from None
        by_cell.setdefault(run.cell, []).append(entry)
    return [
        CellResult(cell, entries, {name: Spread.of(entry.get(name) for entry in entries) for name in FIGURES})
        for cell, entries in by_cell.items()
    ]


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
    results = Results(out, cells, report)
    remarks = [*_failures(results.errors), *report.remarks, *map(_describe, made_with)]
    results = attrs.evolve(results, report=attrs.evolve(report, remarks=remarks))
    rows = [cell.csv_row() for cell in cells]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_text(out / "results.md", results.report.markdown())
        write_text(out / "results.csv", text.getvalue())
        write_json(out / "results.json", {**about, "made_with": made_with, "cells": [cell.as_json() for cell in cells]})
    except OSError as error:
        raise UserError(f"{out}: {error}; the runs are kept") from error
    return results


def environments(cells: Sequence[CellResult]) -> list[dict[str, Any]]:
    """Return the distinct versions, plugins aside, and hardware of finished runs, with how many were made so.

    The name of a processor is that of this machine.

    Raises:
        UserError: if the options of a run cannot be read.
    """
    found: list[dict[str, Any]] = []
    for folder in (Path(run["folder"]) for cell in cells for run in cell.runs if "error" not in run):
        config = read_json(folder / "config.json")
        if not {"device", "versions"} <= config.keys():
            raise UserError(f"{folder / 'config.json'}: not that of a run; remove the folder")
        device = config["device"]
        cpu = f"{cpu_name()}, {usable_cpus()} processors"
        made = {"hardware": cpu if device == "cpu" else device, "versions": config["versions"]}
        same = next((entry for entry in found if made.items() <= entry.items()), None)
        if same is None:
            found.append(made | {"runs": 1})
        else:
            same["runs"] += 1
    return found


def _describe(environment: Mapping[str, Any]) -> str:
    versions, runs = environment["versions"], environment["runs"]
    packages = f"reweight-core {versions['reweight-core']}, torch {versions['torch']} and Python {versions['python']}"
    return f"{runs} {'run' if runs == 1 else 'runs'} with {packages} on {environment['hardware']}."


def _failures(errors: Mapping[str, str]) -> list[str]:
    """Return a line for each way in which runs failed."""
    by_error: dict[str, list[str]] = {}
    for name, error in errors.items():
        by_error.setdefault(error, []).append(name)
    return [f"failed: {', '.join(names)}: {error}" for error, names in by_error.items()]
