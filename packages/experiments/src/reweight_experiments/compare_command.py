"""``reweight compare``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reweight_core import console, json_option
from reweight_experiments.compare_plot import check_file
from reweight_experiments.progress import print_report
from reweight_experiments.side_by_side import compare


@click.command(name="compare")
@click.argument("runs", type=Path, nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--plot", "plot_file", type=Path, metavar="FILE", help="Draw the epochs of all into a .svg, .png or .pdf."
)
@json_option
def command(runs: tuple[Path, ...], plot_file: Path | None, as_json: bool) -> None:
    """Put runs side by side: what differs between their options, and what came of them.

    RUN is the folder of a run, finished or not, or of a sweep, whose seeds are taken together.

    \b
    reweight compare runs/gdw-digits-1 runs/erm-digits-1 --plot curves.svg
    """
    if plot_file is not None:
        check_file(plot_file)
    found = compare(*runs)
    screen = console()
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        print_report(screen, found.report())
    if plot_file is None:
        return
    # a plot that cannot be drawn takes no table with it
    found.plot(plot_file)
    if not as_json:
        screen.print(f"curves in {plot_file}", soft_wrap=True)
