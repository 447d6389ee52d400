"""``reweight list``."""

import json

import click
from rich import box
from rich.console import Console
from rich.table import Table

from reweight_core.plugins import registry


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the methods, components, datasets, kinds of noise, models, tables and commands that are installed."""
    found = {
        kind: {name: record.summary for name, record in registry.load_all(kind).items()} for kind in registry.GROUPS
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(box=box.SIMPLE)
    for column in ("option", "name", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    before = {"component": "--with", "table": "reproduce", "command": "reweight"}
    for kind, records in found.items():
        for name, summary in records.items():
            table.add_row(before.get(kind, f"--{kind}"), name, summary)
        table.add_section()
    Console(markup=False, emoji=False, highlight=False).print(table)
    click.echo("--model also takes torchvision's classification models by name, or package.module:factory.")
