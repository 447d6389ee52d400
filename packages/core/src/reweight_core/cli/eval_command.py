"""``reweight eval``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reweight_core.cli.run_argument import network_option, run_argument

if TYPE_CHECKING:
    from reweight_core.runs.predict import Kept


@click.command(name="eval")
@run_argument
@network_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, network: "Kept", device: str, as_json: bool) -> None:
    """Test the newest checkpoint of the folder RUN on its test set."""
    from reweight_core.runs.evaluate import evaluate

    result = evaluate(run, device, network)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(
            f"test accuracy {result['test_accuracy']:.4f} on {result['test_size']} examples "
            f"({network} network, of epoch {result['epoch']}, step {result['step']})"
        )
