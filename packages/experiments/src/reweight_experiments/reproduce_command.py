"""``reweight reproduce``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from reweight_core import (
    DeclaringCommand,
    Option,
    RunConfig,
    console,
    core_options,
    first_pass,
    json_option,
    known_options,
    quiet_option,
    registry,
    take_given,
)
from reweight_experiments.cells import CHOOSING
from reweight_experiments.devices import jobs_option
from reweight_experiments.jobs import stopped_by_signals
from reweight_experiments.progress import SweepProgress, show
from reweight_experiments.published import choose_cells, options_of_cells, read_table
from reweight_experiments.reproduction import plan_reproduction, reproduce
from reweight_experiments.slurm import slurm_of, slurm_options


class ReproduceCommand(DeclaringCommand):
    """Has all options of train that a chosen cell of the table has."""

    def declared(self, ctx: click.Context, args: list[str]) -> Mapping[str, Option]:
        """Those of core and of every plugin that a chosen cell uses."""
        own = [parameter for parameter in self.params if isinstance(parameter, click.Option)]
        choosing = [name for name in CHOOSING if name in core_options(RunConfig) and name != "method"]
        given, rest = first_pass(ctx, args, choosing, own)
        overrides = {name: given[name] for name in choosing if name in given}
        name = next((text for text in rest if text in registry.names("table")), None)
        if name is None:
            known = known_options(RunConfig, overrides)
        else:
            table = read_table(registry.find("table", name))
            cells = choose_cells(table, given.get("only"), given.get("pattern", "*"))
            known = options_of_cells(cells, overrides)
        return {name: item for name, item in known.items() if name not in ("method", "out")}


@click.command(
    name="reproduce",
    cls=ReproduceCommand,
    epilog="All other options are those of reweight train. They override the table's, and its heading says so.",
)
@click.argument("name", required=False)
@click.option("--list", "list_tables", is_flag=True, help="List the published tables that are installed.")
@click.option("--only", metavar="ROW,...", help="Only the rows of these methods, losses or components.")
@click.option("--cells", "pattern", default="*", metavar="PATTERN", help="Only the cells of such names: '*cifar10*'.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each cell.")
@jobs_option
@click.option("--out", type=Path, metavar="DIR", help="Folder of the runs and results.  [default: runs/NAME]")
@click.option("--dry-run", is_flag=True, help="Print the command of each run, and run nothing.")
@slurm_options
@quiet_option
@json_option
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
    launcher: str,
    slurm_jobs: int | None,
    slurm_parameters: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the settings of the published table NAME, and compare the results with its figures.

    Called again, it keeps finished runs and makes the others. Several processes, on machines
    that share the folder, make a part each.

    \b
    reweight reproduce gdw-uniform --cells '*cifar10-40' --seeds 5
    """
    if list_tables:
        _list_tables(as_json)
        return
    if name is None:
        raise click.UsageError("give the NAME of a table; reweight reproduce --list shows them", ctx)
    chosen: dict[str, Any] = {"only": only, "cells": pattern, "seeds": seeds, **take_given(ctx, options)}
    if dry_run:
        commands = [["reweight", *run.arguments] for run in plan_reproduction(name, out, **chosen).runs]
        click.echo(json.dumps(commands, indent=2) if as_json else "\n".join(map(shlex.join, commands)))
        return
    slurm = slurm_of(launcher, slurm_jobs, slurm_parameters)
    with stopped_by_signals(), SweepProgress(quiet or as_json) as progress:
        results = reproduce(name, out, jobs=jobs, slurm=slurm, watcher=progress, **chosen)
    show(results, quiet, as_json)
    if results.errors:
        sys.exit(1)


def _list_tables(as_json: bool) -> None:
    records = registry.load_all("table")
    if as_json:
        tables = {name: {"summary": record.summary, "source": record.source} for name, record in records.items()}
        click.echo(json.dumps(tables, indent=2))
        return
    table = Table(box=box.SIMPLE)
    for title in ("name", "what it is", "from"):
        table.add_column(title, no_wrap=title == "name")
    for name, record in records.items():
        table.add_row(name, record.summary, record.source)
    console().print(table)
