"""``reweight predict``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.progress import Progress
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.cli.output_options import json_option
from reweight_core.cli.run_argument import network_option, run_argument
from reweight_core.errors import UserError
from reweight_core.files import refuse_outputs

if TYPE_CHECKING:
    from reweight_core.runs.checkpoint import Kept


@click.command(name="predict")
@run_argument
@network_option
@click.argument("paths", type=Path, nargs=-1, required=True)
@click.option(
    "--csv", "csv_file", type=Path, metavar="FILE", help="Write a line for each example, all probabilities in it."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@json_option
def command(
    run: Path, network: "Kept", paths: tuple[Path, ...], csv_file: Path | None, device: str, as_json: bool
) -> None:
    """Classify the images PATHS, files or folders, with the newest checkpoint of the folder RUN.

    If RUN was trained on a table of features, PATHS are CSV files with the same columns; if the plugin of its dataset
    reads new examples itself, they are whatever that takes.
    """
    refuse_outputs({"--csv": csv_file})
    if csv_file is not None and csv_file.resolve() in [path.resolve() for path in paths]:
        raise UserError(f"--csv {csv_file}: is one of the files to predict for; give another name")

    from reweight_core.runs.predict import load, predict

    classifier = load(run, device, network)
    out = console()
    with Progress(console=out, transient=True, disable=as_json or not out.is_terminal) as bar:
        task = bar.add_task("predictions", total=None)
        predictions = predict(classifier, paths, lambda done, total: bar.update(task, completed=done, total=total))
    if csv_file is not None:
        predictions.write_csv(csv_file)
    if as_json:
        click.echo(json.dumps(predictions.as_json(), indent=2))
        return
    if csv_file is not None:
        out.print(f"{len(predictions.names)} predictions in {csv_file}", soft_wrap=True)
        return
    table = Table(box=box.SIMPLE)
    for column in (predictions.what, "predicted", "probability"):
        table.add_column(column, overflow="fold")
    for name, row in zip(predictions.names, predictions.probabilities, strict=True):
        table.add_row(name, predictions.classes[row.argmax()], f"{row.max():.3f}")
    out.print(table)
