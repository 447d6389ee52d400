"""``reweight score``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reweight_core import run_argument


@click.command(name="score")
@run_argument
@click.argument("new", type=Path)
@click.option("--worst", type=click.IntRange(0), default=20, show_default=True, help="Examples to show.")
@click.option("--csv", "csv_file", type=Path, metavar="FILE", help="Write every example, the most suspicious first.")
@click.option("--json", "prints_json", is_flag=True, help="Print JSON.")
def command(run: Path, new: Path, worst: int, csv_file: Path | None, prints_json: bool) -> None:
    """List the examples of NEW whose labels are probably wrong, by the network of the finished run RUN.

    NEW is a folder with a folder of images for each class; for a run on a table, a CSV file with the same columns.

    \b
    reweight score runs/gdw-folder-1 new_photos
    """
    from reweight_audit.files import as_json, write_csv
    from reweight_audit.scoring import score
    from reweight_audit.screen import show

    found = score(run, new)
    if csv_file is not None:
        write_csv(csv_file, found)
    if prints_json:
        click.echo(json.dumps(as_json(found)))
    else:
        show(found, worst)
