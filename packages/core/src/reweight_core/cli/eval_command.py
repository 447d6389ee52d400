"""``reweight eval``."""

import json
from pathlib import Path

import click

from reweight_core.cli.run_argument import run_argument


@click.command(name="eval")
@run_argument
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, device: str, as_json: bool) -> None:
    """Test the newest checkpoint of the folder RUN on its test set."""
    from reweight_core.runs.evaluate import evaluate

    result = evaluate(run, device)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(
            f"test accuracy {result['test_accuracy']:.4f} on {result['test_size']} examples "
            f"(checkpoint of epoch {result['epoch']}, step {result['step']})"
        )
