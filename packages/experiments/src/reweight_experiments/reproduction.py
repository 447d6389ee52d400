"""Published tables run again in Python, and their figures beside the results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core import UserError, registry
from reweight_experiments.carry_out import Watcher, carry_out
from reweight_experiments.cells import PlannedRun, Texts, as_arguments, check_whole_number, plan_runs
from reweight_experiments.devices import slots_on, take_devices
from reweight_experiments.published import (
    PublishedCell,
    PublishedTable,
    choose_cells,
    installed_cells,
    options_of_cells,
    planned_cells,
    read_table,
)
from reweight_experiments.report import CellResult, Report, Results, collect, keep
from reweight_experiments.slurm import Slurm, make_by_slurm


def reproduce(
    name: str,
    out: Path | str | None = None,
    *,
    only: Texts | None = None,
    cells: str = "*",
    seed: int = 0,
    seeds: int = 1,
    jobs: int = 1,
    slurm: Slurm | None = None,
    watcher: Watcher | None = None,
    **overrides: Any,
) -> Results:
    """Run the settings of a published table, and compare the results with its figures (``reweight reproduce``).

    Called again with the same folder, or by several processes at once, it does what `run_sweep` does. `Results.cells`
    are `Comparison`; what fails is in `Results.errors`, and takes no other run with it.

    Args:
        name: the table.
        out: folder of the runs and of the result table; None for ``runs/NAME``.
        only: rows that are run, by the names of their methods, or a text with commas; None for all. Those whose plugins
            are not installed are left out with a warning; without `only` they are an error.
        cells: what the names of the cells must match, ``*cifar10*`` for example.
        seed: seed of the first run of each cell.
        seeds: number of runs of each cell.
        jobs: number of runs at a time, each a process; with several GPUs at least one on each.
        slurm: jobs of Slurm that make the runs; None makes them here.
        watcher: is told how the runs get on.
        **overrides: options of ``reweight train`` (underscores) in place of the table's.

    Raises:
        UserError: before the first run, for an unknown table, an option that is wrong, or a folder that does not fit.
    """
    check_whole_number("--jobs", jobs, 1)
    plan = plan_reproduction(name, out, only=only, cells=cells, seed=seed, seeds=seeds, **overrides)
    table, out = plan.table, plan.out
    arguments = {
        "only": ",".join(dict.fromkeys(cell.row for cell in plan.chosen)) if only is not None else None,
        "cells": None if cells == "*" else cells,
        **overrides,
        **({"device": ",".join(plan.devices)} if plan.devices else {}),
        **{"seed": seed, "seeds": seeds, "jobs": jobs, "out": out},
    }
    command = ["reproduce", name, *as_arguments(arguments)]
    watcher = watcher or Watcher()
    if slurm is None:
        made = carry_out(plan.runs, out, slots_on(plan.devices, jobs), watcher)
    else:
        made = make_by_slurm(plan.runs, out, command, slurm, watcher)
    with made as outcome:
        results = collect(plan.runs, outcome)
        comparisons = [Comparison.of(table, *pair) for pair in zip(plan.chosen, results, strict=True)]
        about = {
            "command": shlex.join(["reweight", *command]),
            "table": name,
            "source": table.record.source,
            "figure": table.figure,
            "published_deviation": table.deviation,
            "overrides": {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
            "notes": table.notes,
        }
        return keep(out, comparison_report(table, comparisons, overrides), comparisons, about)


@attrs.frozen(eq=False)
class PlannedReproduction:
    """What a reproduction will do.

    Attributes:
        table: the published table.
        chosen: the cells of it that are run.
        runs: their runs, cell by cell.
        out: the folder of the runs.
        devices: the GPUs that they are spread over, if there are several.
    """

    table: PublishedTable
    chosen: Sequence[PublishedCell]
    runs: Sequence[PlannedRun]
    out: Path
    devices: Sequence[str]


def plan_reproduction(
    name: str,
    out: Path | str | None,
    *,
    only: Texts | None = None,
    cells: str = "*",
    seed: int = 0,
    seeds: int = 1,
    **overrides: Any,
) -> PlannedReproduction:
    """Choose, plan and check the runs of `reproduce` (arguments and errors as there); nothing is run or written."""
    if "method" in overrides:
        raise UserError("method: each cell of a table has its own; choose cells with only=")
    table = read_table(registry.find("table", name))
    out = Path("runs") / name if out is None else Path(out)
    chosen = installed_cells(choose_cells(table, only, cells), leave_out=only is not None)
    of_runs, devices = take_devices(overrides)
    runs = plan_runs(planned_cells(table, chosen, of_runs), seed, seeds, out)
    return PlannedReproduction(table, chosen, runs, out, devices)


@attrs.frozen(kw_only=True)
class Comparison(CellResult):
    """A cell's result beside the published figure; accuracies in %, differences in points.

    Attributes:
        published: the published cell.
        mean: ours, None if no run finished.
        deviation: sample standard deviation of ours, None for fewer than two runs.
        difference: ours less the published mean, None if one is missing or the published one is no target.
        in_deviations: the difference in published deviations, None if there is none.
    """

    published: PublishedCell
    mean: float | None
    deviation: float | None
    difference: float | None
    in_deviations: float | None

    @classmethod
    def of(cls, table: PublishedTable, published: PublishedCell, result: CellResult) -> Comparison:
        """Compare the table's figure."""
        spread = result.spreads[table.figure]
        mean = None if spread.mean is None else 100 * spread.mean
        deviation = None if spread.deviation is None else 100 * spread.deviation
        target = published.mean if published.no_target is None else None
        difference = None if mean is None or target is None else mean - target
        in_deviations = difference / published.deviation if difference is not None and published.deviation else None
        return cls(
            cell=result.cell,
            runs=result.runs,
            spreads=result.spreads,
            published=published,
            mean=mean,
            deviation=deviation,
            difference=difference,
            in_deviations=in_deviations,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what the result is, and the comparison, as JSON values."""
        return super().as_json() | {
            "published": {
                "mean": self.published.mean,
                "deviation": self.published.deviation,
                "no_target": self.published.no_target,
            },
            "difference": self.difference,
            "difference_in_published_deviations": self.in_deviations,
            "notes": self.published.notes,
        }

    def csv_row(self) -> dict[str, Any]:
        """Return both as the columns of a CSV file."""
        return super().csv_row() | {
            "published_mean": self.published.mean,
            "published_deviation": self.published.deviation,
            "no_target": self.published.no_target,
            "difference": self.difference,
            "difference_in_published_deviations": self.in_deviations,
        }


def comparison_report(table: PublishedTable, comparisons: Sequence[Comparison], overrides: Mapping[str, Any]) -> Report:
    """Return the table of a reproduction; its heading says whether the overrides leave the paper's setting."""
    figure = "last epoch" if table.figure == "test_accuracy" else "mean of the last five epochs"
    published = f"; published ±: {table.deviation}" if table.deviation else ""
    heading = [
        f"{table.record.source}. Test accuracy in %, {figure}{published}; ours ±: sample standard deviation, n seeds."
    ]
    if overrides:
        known = options_of_cells([one.published for one in comparisons], overrides)
        changed = ": not the paper's setting" if any(known[name].changes_result for name in overrides) else ""
        heading.append(f"With {' '.join(as_arguments(overrides))}{changed}.")
    columns = ["cell", "published", "n", "ours", "points", "in published ±"]
    rows = [
        [
            one.published.name,
            _published(one.published),
            str(one.finished),
            _figure(one.mean, one.deviation),
            "-" if one.difference is None else f"{one.difference:+.2f}",
            "-" if one.in_deviations is None else f"{one.in_deviations:+.1f}",
        ]
        for one in comparisons
    ]
    by_note: dict[str, list[str]] = {}
    for one in comparisons:
        no_target = [] if one.published.no_target is None else [f"In brackets, no target: {one.published.no_target}"]
        for note in [*one.published.notes, *no_target]:
            by_note.setdefault(note, []).append(one.published.name)
    notes = [f"{note} ({', '.join(names)})" for note, names in by_note.items()]
    return Report(heading, columns, rows, [*table.notes, *notes], unbroken=columns[1:])


def _published(cell: PublishedCell) -> str:
    figure = _figure(cell.mean, cell.deviation)
    return figure if cell.no_target is None else f"[{figure}]"


def _figure(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
