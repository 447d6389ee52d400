"""The result of a sweep: means and deviations over seeds, by cell, and the files that keep them."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core.errors import UserError
from reweight_core.files import write_json, write_text
from reweight_core.machine.device import cpu_name, usable_cpus
from reweight_experiments.cells import Cell, Run
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
        """Number of finished runs."""
        return sum("error" not in run for run in self.runs)


@attrs.frozen
class Report:
    """A result table as people read it.

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


def collect(runs: Sequence[Run], errors: Mapping[str, str]) -> list[CellResult]:
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


def sweep_report(results: Sequence[CellResult], made_with: Sequence[str]) -> Report:
    """Return the table of a sweep."""
    labels = list(dict.fromkeys(name for result in results for name in result.cell.labels))
    columns = [*labels, "n", "test accuracy", "mean of last 5", "AUROC of weights", "seconds"]
    rows = [
        [
            *(result.cell.labels.get(name, "-") for name in labels),
            str(result.finished),
            *(result.spreads[name].text(4) for name in FIGURES[:3]),
            result.spreads["seconds"].text(1),
        ]
        for result in results
    ]
    heading = ["Test accuracy of the last epoch and of the last five; mean ± sample standard deviation over n seeds."]
    return Report(heading, columns, rows, [*failures(results), *made_with], labels)


def failures(results: Sequence[CellResult]) -> list[str]:
    """Return a line for each way in which runs failed."""
    by_error: dict[str, list[str]] = {}
    for result in results:
        for run in result.runs:
            if "error" in run:
                by_error.setdefault(run["error"], []).append(f"{result.cell.name}/seed-{run['seed']}")
    return [f"failed: {', '.join(names)}: {error}" for error, names in by_error.items()]


def environments(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the distinct versions, plugins aside, and hardware of finished runs, with how many were made so.

    The name of a processor is that of this machine.
    """
    found: list[dict[str, Any]] = []
    for run in runs:
        config = read_json(run.folder / "config.json")
        if not {"device", "versions"} <= config.keys():
            raise UserError(f"{run.folder / 'config.json'}: not that of a run; remove the folder")
        device = config["device"]
        cpu = f"{cpu_name()}, {usable_cpus()} processors"
        made = {"hardware": cpu if device == "cpu" else device, "versions": config["versions"]}
        same = next((entry for entry in found if made.items() <= entry.items()), None)
        if same is None:
            found.append(made | {"runs": 1})
        else:
            same["runs"] += 1
    return found


def describe(environment: Mapping[str, Any]) -> str:
    """Return an entry of `environments` as a line."""
    versions, runs = environment["versions"], environment["runs"]
    packages = f"reweight-core {versions['reweight-core']}, torch {versions['torch']} and Python {versions['python']}"
    return f"{runs} {'run' if runs == 1 else 'runs'} with {packages} on {environment['hardware']}."


def as_json(result: CellResult) -> dict[str, Any]:
    """Return a cell's labels, spreads and runs as JSON values."""
    spreads = {name: {"mean": spread.mean, "sd": spread.deviation} for name, spread in result.spreads.items()}
    return {"name": result.cell.name, **result.cell.labels, "n": result.finished, **spreads, "runs": list(result.runs)}


def csv_row(result: CellResult) -> dict[str, Any]:
    """Return a cell's labels and spreads as the columns of a CSV file."""
    row: dict[str, Any] = {**result.cell.labels, "n": result.finished}
    for name, spread in result.spreads.items():
        row |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.deviation}
    return row


def write(out: Path, report: Report, csv_rows: Sequence[Mapping[str, Any]], content: Mapping[str, Any]) -> None:
    """Write results.md, results.csv and results.json, each whole or not at all.

    Raises:
        UserError: if one cannot be written.
    """
    columns = list(dict.fromkeys(name for row in csv_rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_rows)
    try:
        write_text(out / "results.md", report.markdown())
        write_text(out / "results.csv", text.getvalue())
        write_json(out / "results.json", dict(content))
    except OSError as error:
        raise UserError(f"{out}: {error}; the runs are kept") from error
