"""Published tables: cells of figures with the options behind them, read from TOML files of plugins.

figure = "test_accuracy"            # or "test_accuracy_mean5": what of a run is compared
deviation = "standard deviation"    # what the paper's +- is
notes = ["what differs from the paper in every cell"]

[options]                           # of every cell
epochs = 80

[[cells]]
name = "gdw-cifar10-40"
method = "gdw"
mean = 88.14                        # in %; left out where the paper has no figure
deviation = 0.35                    # likewise
options = { noise = "uniform:0.4" } # beside those of every cell
notes = ["what differs in this cell"]
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs.validators import deep_iterable, in_, instance_of, optional

from reweight_core.config.options import Option
from reweight_core.config.resolve import configure, known_options
from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError, nearest, reason
from reweight_core.plugins.records import TablePlugin
from reweight_experiments.cells import SAME_SETTING, Cell, as_arguments, union
from reweight_experiments.report import CellResult, Report, as_json, csv_row, failures

TEXTS = deep_iterable(instance_of(str))
NUMBER = optional(instance_of((int, float)))


def _underscored(options: Mapping[str, Any]) -> dict[str, Any]:
    if "method" in options:
        raise ValueError("'method' is a key of a cell, not an option")
    return {name.replace("-", "_"): value for name, value in options.items()}


@attrs.frozen(kw_only=True, eq=False)
class PublishedCell:
    """A published figure and its setting.

    Attributes:
        name: what it is called in its table.
        method: the method's name.
        options: other options of its runs, by name.
        mean: accuracy in %, None if it is not published.
        deviation: the paper's +-, None if it is not published.
        notes: how its setting differs from the paper's.
    """

    name: str = attrs.field(validator=instance_of(str))
    method: str = attrs.field(validator=instance_of(str))
    options: dict[str, Any] = attrs.field(factory=dict, converter=_underscored)
    mean: float | None = attrs.field(default=None, validator=NUMBER)
    deviation: float | None = attrs.field(default=None, validator=NUMBER)
    notes: list[str] = attrs.field(factory=list, validator=TEXTS)


@attrs.frozen(kw_only=True, eq=False)
class PublishedTable:
    """A table of a paper.

    Attributes:
        record: the plugin that it belongs to.
        figure: the figure of summary.json that compares with it.
        deviation: what its +- is, None if it has none.
        notes: how the settings of all cells differ from the paper's.
        cells: its cells, the options of all cells in each.
    """

    record: TablePlugin
    figure: str = attrs.field(validator=in_(("test_accuracy", "test_accuracy_mean5")))
    deviation: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    notes: list[str] = attrs.field(factory=list, validator=TEXTS)
    cells: list[PublishedCell]


def read(record: TablePlugin) -> PublishedTable:
    """Read a table's file.

    Raises:
        UserError: if it is not of the form above.
    """
    try:
        content = tomllib.loads(record.path.read_text(encoding="utf-8"))
        common = _underscored(content.pop("options", {}))
        cells = [PublishedCell(**cell) for cell in content.pop("cells")]
        names = [cell.name for cell in cells]
        if len(set(names)) < len(names):
            raise ValueError("two cells have the same name")
        cells = [attrs.evolve(cell, options=common | cell.options) for cell in cells]
        return PublishedTable(record=record, cells=cells, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"table '{record.name}' in {record.path}: {reason(error)}") from error


def options_of_cells(cells: Sequence[PublishedCell], overrides: Mapping[str, Any]) -> dict[str, Option]:
    """List the options that at least one cell has (of `overrides`, what chooses plugins matters)."""
    return union([known_options(RunConfig, {**_values(cell), **overrides}) for cell in cells])


def select(table: PublishedTable, methods: Sequence[str], pattern: str) -> list[PublishedCell]:
    """Return the cells of these methods (of all if none is named) whose names match a pattern like ``*cifar10*``.

    Raises:
        UserError: if there is none.
    """
    of_table = {cell.method for cell in table.cells}
    for name in methods:
        if name not in of_table:
            raise UserError(
                f"--only {name}: table '{table.record.name}' has no cell of it{nearest(name, of_table)}; "
                f"it has {', '.join(sorted(of_table))}"
            )
    chosen = [
        cell
        for cell in table.cells
        if (not methods or cell.method in methods) and fnmatch.fnmatchcase(cell.name, pattern)
    ]
    if not chosen:
        names = ", ".join(cell.name for cell in table.cells if not methods or cell.method in methods)
        raise UserError(f"--cells {pattern}: matches none of {names}")
    return chosen


def cells_of(table: PublishedTable, chosen: Sequence[PublishedCell], overrides: Mapping[str, Any]) -> list[Cell]:
    """Make the cells of a sweep; an override goes to the cells that have the option.

    Raises:
        UserError: if a cell's own options are wrong, or no cell has an option that is overridden.
    """
    cells = []
    known_anywhere: set[str] = set()
    for published in chosen:
        try:
            configure(RunConfig, **_values(published))
        except UserError as error:
            raise UserError(f"table '{table.record.name}', cell {published.name}: {error}") from error
        values = {**_values(published), **overrides}
        if "epochs" in overrides and "steps" not in overrides:
            # steps rank above epochs: those of the table would leave the override without effect
            values.pop("steps", None)
        known = known_options(RunConfig, values)
        known_anywhere |= set(known)
        fitting = {name: value for name, value in values.items() if name in known}
        cells.append(Cell(published.name, {"cell": published.name, "method": published.method}, fitting))
    for name in overrides:
        if name not in known_anywhere:
            raise UserError(f"--{name.replace('_', '-')}: none of the chosen cells has this option")
    return cells


def _values(cell: PublishedCell) -> dict[str, Any]:
    return {"method": cell.method, **cell.options}


@attrs.frozen
class Comparison:
    """A cell's result beside the published figure; accuracies in %, differences in points.

    Attributes:
        published: the published cell.
        result: the result.
        mean: ours, None if no run finished.
        deviation: sample standard deviation of ours, None for fewer than two runs.
        difference: ours less the published mean, None if one is missing.
        in_deviations: the difference in published deviations, None if there is none.
    """

    published: PublishedCell
    result: CellResult
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
        difference = None if mean is None or published.mean is None else mean - published.mean
        in_deviations = difference / published.deviation if difference is not None and published.deviation else None
        return cls(published, result, mean, deviation, difference, in_deviations)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return as_json(self.result) | {
            "published": {"mean": self.published.mean, "deviation": self.published.deviation},
            "difference": self.difference,
            "difference_in_published_deviations": self.in_deviations,
            "notes": self.published.notes,
        }

    def csv_row(self) -> dict[str, Any]:
        """Return it as the columns of a CSV file."""
        return csv_row(self.result) | {
            "published_mean": self.published.mean,
            "published_deviation": self.published.deviation,
            "difference": self.difference,
            "difference_in_published_deviations": self.in_deviations,
        }


def comparison_report(
    table: PublishedTable, comparisons: Sequence[Comparison], overrides: Mapping[str, Any], made_with: Sequence[str]
) -> Report:
    """Return the table of a reproduction."""
    figure = "last epoch" if table.figure == "test_accuracy" else "mean of the last five epochs"
    published = f"; published ±: {table.deviation}" if table.deviation else ""
    heading = [
        f"{table.record.source}. Test accuracy in %, {figure}{published}; ours ±: sample standard deviation, n seeds."
    ]
    if overrides:
        changed = "" if overrides.keys() <= set(SAME_SETTING) else ": not the paper's setting"
        heading.append(f"With {' '.join(as_arguments(overrides))}{changed}.")
    columns = ["cell", "published", "n", "ours", "points", "in published ±"]
    rows = [
        [
            one.published.name,
            _figure(one.published.mean, one.published.deviation),
            str(one.result.finished),
            _figure(one.mean, one.deviation),
            "-" if one.difference is None else f"{one.difference:+.2f}",
            "-" if one.in_deviations is None else f"{one.in_deviations:+.1f}",
        ]
        for one in comparisons
    ]
    by_note: dict[str, list[str]] = {}
    for one in comparisons:
        for note in one.published.notes:
            by_note.setdefault(note, []).append(one.published.name)
    notes = [f"{note} ({', '.join(names)})" for note, names in by_note.items()]
    remarks = [*failures([one.result for one in comparisons]), *table.notes, *notes, *made_with]
    return Report(heading, columns, rows, remarks, ["cell"])


def _figure(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
