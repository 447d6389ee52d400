"""``reweight score``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reweight_core import json_option, refuse_outputs, run_argument


@click.command(name="score")
@run_argument
@click.argument("new", type=Path)
@click.option("--worst", type=click.IntRange(0), default=20, show_default=True, help="Examples to show.")
@click.option("--csv", "csv_file", type=Path, metavar="FILE", help="Write every example, the most suspicious first.")
@json_option
def command(run: Path, new: Path, worst: int, csv_file: Path | None, as_json: bool) -> None:
    """List the examples of NEW whose labels are probably wrong, by the network of the finished run RUN.

    NEW is a folder with a folder of images for each class; or a CSV file: with the columns of the run's table, or with
    file (relative to it) and label.

    \b
    reweight score runs/gdw-folder-1 new_photos
    """
    refuse_outputs({"--csv": csv_file})

    from reweight_audit.files import values_of, write_csv
    from reweight_audit.scoring import score
    from reweight_audit.screen import show

    found = score(run, new)
    if csv_file is not None:
        write_csv(csv_file, found)
    if as_json:
        click.echo(json.dumps(values_of(found)))
    else:
        show(found, worst)
