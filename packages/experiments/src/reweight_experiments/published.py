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

from reweight_core import Option, RunConfig, TablePlugin, UserError, configure, known_options, nearest, over, reason
from reweight_experiments.cells import Cell, Texts, texts_of, union

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

    @property
    def values(self) -> dict[str, Any]:
        """All options of its runs, the method too."""
        return {"method": self.method, **self.options}


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


def read_table(record: TablePlugin) -> PublishedTable:
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
        cells = [attrs.evolve(cell, options=over(cell.options, common)) for cell in cells]
        return PublishedTable(record=record, cells=cells, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"table '{record.name}' in {record.path}: {reason(error)}") from error


def choose_cells(table: PublishedTable, only: Texts | None, pattern: str) -> list[PublishedCell]:
    """Return the cells of some methods whose names match a pattern like ``*cifar10*``.

    Args:
        table: the table.
        only: the methods, as a sequence or a text with commas; None for all.
        pattern: what the names must match.

    Raises:
        UserError: if there is none.
    """
    of_table = {cell.method for cell in table.cells}
    methods = of_table if only is None else texts_of("--only", only)
    for name in methods:
        if name not in of_table:
            raise UserError(
                f"--only {name}: table '{table.record.name}' has no cell of it{nearest(name, of_table)}; "
                f"it has {', '.join(sorted(of_table))}"
            )
    of_methods = [cell for cell in table.cells if cell.method in methods]
    chosen = [cell for cell in of_methods if fnmatch.fnmatchcase(cell.name, pattern)]
    if not chosen:
        raise UserError(f"--cells {pattern}: matches none of {', '.join(cell.name for cell in of_methods)}")
    return chosen


def options_of_cells(cells: Sequence[PublishedCell], overrides: Mapping[str, Any]) -> dict[str, Option]:
    """List the options that at least one cell has (of `overrides`, what chooses plugins matters).

    A cell whose plugins are not installed is passed over: help must work without it.

    Raises:
        UserError: if that is true of every cell.
    """
    tables, problems = [], []
    for cell in cells:
        try:
            tables.append(known_options(RunConfig, cell.values | dict(overrides)))
        except UserError as problem:
            problems.append(problem)
    if not tables:
        raise problems[0]
    return union(tables)


def planned_cells(table: PublishedTable, chosen: Sequence[PublishedCell], overrides: Mapping[str, Any]) -> list[Cell]:
    """Make the cells of a sweep of published ones; an override goes to the cells that have the option.

    Raises:
        UserError: if a cell's own options are wrong, or no cell has an option that is overridden.
    """
    cells = []
    known_anywhere: set[str] = set()
    for published in chosen:
        values = over(overrides, published.values)
        try:
            configure(RunConfig, **published.values)
            known = known_options(RunConfig, values)
        except UserError as error:
            raise UserError(f"table '{table.record.name}', cell {published.name}: {error}") from error
        known_anywhere |= set(known)
        fitting = {name: value for name, value in values.items() if name in known}
        cells.append(Cell(published.name, {"cell": published.name, "method": published.method}, fitting))
    for name in overrides:
        if name not in known_anywhere:
            raise UserError(f"--{name.replace('_', '-')}: none of the chosen cells has this option")
    return cells
