"""``reweight reproduce``."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from reweight_core.cli.plugin_options import DeclaringCommand, command_line, first_pass, take_given
from reweight_core.config.options import Option
from reweight_core.config.resolve import known_options
from reweight_core.config.run_config import RunConfig
from reweight_core.plugins import registry
from reweight_experiments import published as tables
from reweight_experiments import report as results
from reweight_experiments.carry_out import carry_out, place_for, show
from reweight_experiments.cells import runs_of


class ReproduceCommand(DeclaringCommand):
    """Has all options of train that a cell of the table has."""

    def declared(self, ctx: click.Context, args: list[str]) -> Mapping[str, Option]:
        """Those of core and of every plugin that any cell uses."""
        own = [parameter for parameter in self.params if isinstance(parameter, click.Option)]
        given, rest = first_pass(ctx, args, ["data", "with", "preset"], own)
        overrides: dict[str, Any] = {name: given[name] for name in ("data", "with", "preset") if name in given}
        name = next((text for text in rest if text in registry.names("table")), None)
        if name is None:
            known = known_options(RunConfig, overrides)
        else:
            known = tables.options_of_cells(tables.read(registry.find("table", name)).cells, overrides)
        return {name: item for name, item in known.items() if name not in ("method", "out")}


@click.command(
    name="reproduce",
    cls=ReproduceCommand,
    epilog="All other options are those of reweight train. They override the table's, and its heading says so.",
)
@click.argument("name", required=False)
@click.option("--list", "list_tables", is_flag=True, help="List the published tables that are installed.")
@click.option("--only", metavar="METHOD,...", help="Only the cells of these methods.")
@click.option("--cells", "pattern", default="*", metavar="PATTERN", help="Only the cells of such names: '*cifar10*'.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each cell.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time, each a process.")
@click.option("--out", type=Path, metavar="DIR", help="Folder of the runs and results.  [default: runs/NAME]")
@click.option("--dry-run", is_flag=True, help="Print the command of each run, and run nothing.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    name: str | None,
    list_tables: bool,
    only: str | None,
    pattern: str,
    seeds: int,
    jobs: int,
    out: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Run the settings of the published table NAME, and compare the results with its figures.

    Called again, it keeps finished runs and makes the others.

    \b
    reweight reproduce gdw-uniform --cells '*cifar10-40' --seeds 5
    """
    if list_tables:
        _list_tables()
        return
    if name is None:
        raise click.UsageError("give the NAME of a table; reweight reproduce --list shows them", ctx)
    table = tables.read(registry.find("table", name))
    overrides = take_given(ctx, options)
    first = overrides.pop("seed", 0)
    out = out or Path("runs") / name
    chosen = tables.select(table, [part.strip() for part in only.split(",")] if only is not None else [], pattern)
    runs = runs_of(tables.cells_of(table, chosen, overrides), range(first, first + seeds), out)
    if dry_run:
        for run in runs:
            click.echo(shlex.join(["reweight", *run.arguments]))
        return
    with place_for(out):
        errors = carry_out(runs, out, jobs)
        found = results.collect(runs, errors)
        comparisons = [tables.Comparison.of(table, *pair) for pair in zip(chosen, found, strict=True)]
        made_with = results.environments([run for run in runs if run.name not in errors])
        described = [results.describe(entry) for entry in made_with]
        report = tables.comparison_report(table, comparisons, overrides, described)
        content = {
            "command": command_line(ctx),
            "table": name,
            "source": table.record.source,
            "figure": table.figure,
            "published_deviation": table.deviation,
            "overrides": {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
            "notes": table.notes,
            "made_with": made_with,
            "cells": [one.as_json() for one in comparisons],
        }
        results.write(out, report, [one.csv_row() for one in comparisons], content)
    show(report, out)
    if errors:
        sys.exit(1)


def _list_tables() -> None:
    table = Table(box=box.SIMPLE)
    for title in ("name", "what it is", "from"):
        table.add_column(title, no_wrap=title == "name")
    for name, record in registry.load_all("table").items():
        table.add_row(name, record.summary, record.source)
    Console(markup=False, emoji=False, highlight=False).print(table)
