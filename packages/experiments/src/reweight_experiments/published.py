"""Published tables: cells of figures with the options behind them, read from TOML files of plugins.

figure = "test_accuracy"            # or "test_accuracy_mean5": what of a run is compared
deviation = "standard deviation"    # what the paper's +- is
notes = ["what differs from the paper in every cell"]

[options]                           # of every cell
epochs = 80

[rows.fine-tuning]                  # only for a row that is more than a method: what its cells have in common
method = "erm"
options = { with = ["fine-tune"] }
package = "reweight-method-trusted" # which has to be installed
notes = ["what differs in this row"]
no-target = "why its figures are printed, but nothing to reach"

[[cells]]
name = "fine-tuning-cifar10-40"
row = "fine-tuning"                 # left out, the row is the method's: method = "gdw"
mean = 84.73                        # in %; left out where the paper has no figure
deviation = 0.47                    # likewise
options = { noise = "uniform:0.4" } # beside those of its row and of every cell
notes = ["what differs in this cell"]
no-target = "why this figure is nothing to reach"
"""

from __future__ import annotations

import fnmatch
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs.validators import deep_iterable, in_, instance_of, optional

from reweight_core import (
    Option,
    RunConfig,
    TablePlugin,
    UserError,
    configure,
    known_options,
    nearest,
    over,
    reason,
    registry,
)
from reweight_experiments.cells import Cell, Texts, texts_of, union

TEXT = optional(instance_of(str))
TEXTS = deep_iterable(instance_of(str))
NUMBER = optional(instance_of((int, float)))


def _underscored(options: Mapping[str, Any]) -> dict[str, Any]:
    if "method" in options:
        raise ValueError("'method' is a key of a cell or a row, not an option")
    return {name.replace("-", "_"): value for name, value in options.items()}


@attrs.frozen(kw_only=True, eq=False)
class PublishedCell:
    """A published figure and its setting.

    Attributes:
        name: what it is called in its table.
        method: the method's name.
        row: what the row of its table is called here; the method's name unless the file says otherwise.
        options: other options of its runs, by name.
        mean: accuracy in %, None if it is not published.
        deviation: the paper's +-, None if it is not published.
        package: the distribution that brings what the row needs, None if it is not said.
        notes: how its setting differs from the paper's.
        no_target: why its figure is nothing to reach, None if it is.
    """

    name: str = attrs.field(validator=instance_of(str))
    method: str = attrs.field(validator=instance_of(str))
    row: str = attrs.field(default=attrs.Factory(lambda self: self.method, takes_self=True), validator=instance_of(str))
    options: dict[str, Any] = attrs.field(factory=dict, converter=_underscored)
    mean: float | None = attrs.field(default=None, validator=NUMBER)
    deviation: float | None = attrs.field(default=None, validator=NUMBER)
    package: str | None = attrs.field(default=None, validator=TEXT)
    notes: list[str] = attrs.field(factory=list, validator=TEXTS)
    no_target: str | None = attrs.field(default=None, validator=TEXT)

    @property
    def values(self) -> dict[str, Any]:
        """All options of its runs, the method too."""
        return {"method": self.method, **self.options}

    @property
    def plugins(self) -> list[tuple[str, str]]:
        """Kind and name of the method, the loss and the components of its runs."""
        loss, components = self.options.get("loss"), self.options.get("with", [])
        components = [components] if isinstance(components, str) else components
        return [("method", self.method), *([("loss", loss)] if loss else []), *(("component", c) for c in components)]


@attrs.frozen(kw_only=True, eq=False)
class PublishedTable:
    """A table of a paper.

    Attributes:
        record: the plugin that it belongs to.
        figure: the figure of summary.json that compares with it.
        deviation: what its +- is, None if it has none.
        notes: how the settings of all cells differ from the paper's.
        cells: its cells, with what their rows and all cells have.
    """

    record: TablePlugin
    figure: str = attrs.field(validator=in_(("test_accuracy", "test_accuracy_mean5")))
    deviation: str | None = attrs.field(default=None, validator=TEXT)
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
        rows = content.pop("rows", {})
        cells = [_cell(cell, rows, common) for cell in content.pop("cells")]
        names = [cell.name for cell in cells]
        if len(set(names)) < len(names):
            raise ValueError("two cells have the same name")
        return PublishedTable(record=record, cells=cells, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"table '{record.name}' in {record.path}: {reason(error)}") from error


def _cell(content: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], common: dict[str, Any]) -> PublishedCell:
    """Make a cell of what the file says of it, of its row and of all cells."""
    if "row" in content and content["row"] not in rows:
        raise ValueError(f"cell {content.get('name')}: there is no [rows.{content['row']}]")
    row = rows.get(content.get("row", content.get("method", "")), {})
    merged = {**row, **content, "notes": [*row.get("notes", []), *content.get("notes", [])]}
    options = over(_underscored(content.get("options", {})), over(_underscored(row.get("options", {})), common))
    return PublishedCell(**{key.replace("-", "_"): value for key, value in merged.items()} | {"options": options})


def choose_cells(table: PublishedTable, only: Texts | None, pattern: str) -> list[PublishedCell]:
    """Return the cells of some rows whose names match a pattern like ``*cifar10*``.

    Args:
        table: the table.
        only: the rows, by the names of their methods, as a sequence or a text with commas; None for all.
        pattern: what the names must match.

    Raises:
        UserError: if there is none.
    """
    of_table = {cell.row for cell in table.cells}
    rows = of_table if only is None else texts_of("--only", only)
    for name in rows:
        if name not in of_table:
            raise UserError(
                f"--only {name}: table '{table.record.name}' has no cell of it{nearest(name, of_table)}; "
                f"it has {', '.join(sorted(of_table))}"
            )
    of_rows = [cell for cell in table.cells if cell.row in rows]
    chosen = [cell for cell in of_rows if fnmatch.fnmatchcase(cell.name, pattern)]
    if not chosen:
        raise UserError(f"--cells {pattern}: matches none of {', '.join(cell.name for cell in of_rows)}")
    return chosen


def installed_cells(chosen: Sequence[PublishedCell], leave_out: bool) -> list[PublishedCell]:
    """Return the cells whose method, loss and components are installed.

    Args:
        chosen: cells of a table.
        leave_out: whether the others are left out with a warning; if not, they are an error.

    Raises:
        UserError: for cells that cannot be run and are not left out, or if none can; it says what to install.
    """
    names = {kind: set(registry.names(kind)) for kind in ("method", "loss", "component")}
    missing = {cell: [f"{kind} '{name}'" for kind, name in cell.plugins if name not in names[kind]] for cell in chosen}
    found = [cell for cell in chosen if not missing[cell]]
    if len(found) < len(chosen):
        needs = dict.fromkeys(
            f"{plugin} ({cell.package})" if cell.package else plugin for cell in chosen for plugin in missing[cell]
        )
        listed = ", ".join(needs)
        if not found:
            raise UserError(f"not installed: {listed}; install what the chosen rows need")
        rows = ",".join(dict.fromkeys(cell.row for cell in found))
        if not leave_out:
            raise UserError(f"not installed: {listed}; install what these rows need, or leave them out: --only {rows}")
        warnings.warn(f"not installed: {listed}; their rows are left out", stacklevel=2)
    return found


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
        # where they are not installed, this says what to install
        installed_cells(cells, leave_out=False)
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
