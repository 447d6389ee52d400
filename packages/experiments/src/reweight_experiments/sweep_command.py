"""``reweight sweep``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from reweight_core import (
    DeclaringCommand,
    Option,
    RunConfig,
    UserError,
    config_option,
    core_options,
    first_pass,
    json_option,
    quiet_option,
    take_given,
)
from reweight_experiments.cells import CHOOSING, axes_of, options_of_all
from reweight_experiments.devices import jobs_option
from reweight_experiments.jobs import stopped_by_signals
from reweight_experiments.progress import SweepProgress, show
from reweight_experiments.slurm import slurm_of, slurm_options
from reweight_experiments.sweep import run_sweep


class SweepCommand(DeclaringCommand):
    """Has all options of train that one of its runs has."""

    def declared(self, ctx: click.Context, args: list[str]) -> Mapping[str, Option]:
        """Those of core and of every plugin that any run chooses; runs without an option do without it."""
        own = [parameter for parameter in self.params if isinstance(parameter, click.Option)]
        choosing = [name for name in CHOOSING if name in core_options(RunConfig) and name not in ("method", "data")]
        given, _ = first_pass(ctx, args, choosing, own)
        file = given.get("config_file")
        axes = axes_of(given.get("methods"), given.get("data"), _varied(given.get("vary", ())), file)
        known = options_of_all(axes, {name: given[name] for name in choosing if name in given}, file)
        return {name: item for name, item in known.items() if name not in ("method", "data", "out")}


@click.command(
    name="sweep",
    cls=SweepCommand,
    params=[config_option()],
    epilog="--seed S begins with another seed than 0. All other options are those of reweight train, for the runs "
    "that have them.",
)
@click.option("--methods", metavar="A,B", help="Methods, separated by commas.  [default: that of the file]")
@click.option("--data", metavar="D,E", help="Datasets, separated by commas.  [default: that of the file, or digits]")
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=V,W",
    help="Run with each of these values of an option of train, e.g. noise=none,uniform:0.4, "
    "loss=cross-entropy,gce or with=none,mixup,mixup+relabel; none leaves the option out. Again for another: all "
    "combinations are run.",
)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each setting.")
@jobs_option
@click.option("--out", type=Path, required=True, metavar="DIR", help="Folder of the runs and of the result table.")
@slurm_options
@quiet_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    methods: str | None,
    data: str | None,
    vary: tuple[str, ...],
    config_file: Path | None,
    seeds: int,
    jobs: int,
    out: Path,
    launcher: str,
    slurm_jobs: int | None,
    slurm_parameters: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare methods: train each in each setting with several seeds, and make one table of it.

    Called again with the same --out, it keeps finished runs and makes the others. Several processes, on machines
    that share the folder, make a part each.

    \b
    reweight sweep --methods erm,gdw --vary noise=none,uniform:0.4 --seeds 3 --out comparison
    """
    given = take_given(ctx, options)
    slurm = slurm_of(launcher, slurm_jobs, slurm_parameters)
    with stopped_by_signals(), SweepProgress(quiet or as_json) as progress:
        results = run_sweep(
            methods,
            out,
            data=data,
            vary=_varied(vary),
            config=config_file,
            seeds=seeds,
            jobs=jobs,
            slurm=slurm,
            watcher=progress,
            **given,
        )
    show(results, quiet, as_json)
    if results.errors:
        sys.exit(1)


def _varied(texts: Sequence[str]) -> dict[str, str]:
    """Read each ``--vary NAME=V,W``: the values by option name."""
    varied: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not name or not equals:
            raise UserError(f"--vary {text}: must be NAME=VALUE,VALUE, e.g. noise=none,uniform:0.4")
        if name in varied:
            raise UserError(f"--vary {text}: the values of '{name}' are given twice")
        varied[name] = values
    return varied
