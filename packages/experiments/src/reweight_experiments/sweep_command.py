"""``reweight sweep``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from reweight_core.cli.plugin_options import DeclaringCommand, command_line, config_option, first_pass, take_given
from reweight_core.config.options import Option
from reweight_experiments import report as results
from reweight_experiments.carry_out import carry_out, place_for, show
from reweight_experiments.cells import cells_of, options_of_all, parse_axes, runs_of


def _varying() -> list[click.Option]:
    return [
        click.Option(["--methods"], required=True, metavar="A,B", help="Methods, separated by commas."),
        click.Option(["--data"], metavar="D,E", help="Datasets, separated by commas.  [default: digits]"),
        click.Option(
            ["--vary", "varied"],
            multiple=True,
            metavar="NAME=V,W",
            help="Run with each of these values of an option of train, e.g. noise=none,uniform:0.4 or "
            "with=none,mixup,mixup+relabel; none leaves the option out. Again for another: all combinations are run.",
        ),
        config_option(),
    ]


class SweepCommand(DeclaringCommand):
    """Has all options of train that one of its runs has."""

    def declared(self, ctx: click.Context, args: list[str]) -> Mapping[str, Option]:
        """Those of core and of every plugin that any run chooses; runs without an option do without it."""
        given, _ = first_pass(ctx, args, ["with", "preset"], _varying())
        # help must work before anything is chosen, and before any dataset is installed
        axes = parse_axes(given.pop("methods", "erm"), given.pop("data", None), given.pop("varied", ()))
        known = options_of_all(axes, given, given.pop("config_file", None))
        return {name: item for name, item in known.items() if name not in ("method", "data", "out")}


@click.command(
    name="sweep",
    cls=SweepCommand,
    epilog="--seed S begins with another seed than 0. All other options are those of reweight train, for the runs "
    "that have them.",
)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each setting.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time, each a process.")
@click.option("--out", type=Path, required=True, metavar="DIR", help="Folder of the runs and of the result table.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    methods: str,
    data: str | None,
    varied: tuple[str, ...],
    config_file: Path | None,
    seeds: int,
    jobs: int,
    out: Path,
    **options: Any,
) -> None:
    """Compare methods: train each in each setting with several seeds, and make one table of it.

    Called again with the same --out, it keeps finished runs and makes the others.

    \b
    reweight sweep --methods erm,gdw --vary noise=none,uniform:0.4 --seeds 3 --out comparison
    """
    given = take_given(ctx, options)
    first = given.pop("seed", 0)
    cells = cells_of(parse_axes(methods, data or "digits", varied), given, config_file)
    runs = runs_of(cells, range(first, first + seeds), out)
    with place_for(out):
        errors = carry_out(runs, out, jobs)
        found = results.collect(runs, errors)
        made_with = results.environments([run for run in runs if run.name not in errors])
        report = results.sweep_report(found, [results.describe(entry) for entry in made_with])
        content = {
            "command": command_line(ctx),
            "made_with": made_with,
            "cells": [results.as_json(result) for result in found],
        }
        results.write(out, report, [results.csv_row(result) for result in found], content)
    show(report, out)
    if errors:
        sys.exit(1)


command.params[:0] = _varying()
