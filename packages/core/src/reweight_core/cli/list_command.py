"""``reweight list``."""

import json

import click
from rich import box
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.cli.output_options import json_option
from reweight_core.config.run_config import PLUGIN_OPTIONS
from reweight_core.plugins import registry


@click.command(name="list")
@json_option
def command(as_json: bool) -> None:
    """List what is installed: every kind of plugin, by the option or command that it is chosen by."""
    found = {
        kind: {name: record.summary for name, record in registry.load_all(kind).items()} for kind in registry.GROUPS
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(box=box.SIMPLE)
    for column in ("to type", "name", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    typed = {kind: f"--{option}" for option, kind in PLUGIN_OPTIONS.items()}
    typed |= {"table": "reproduce", "command": "reweight"}
    for kind, records in found.items():
        for name, summary in records.items():
            table.add_row(typed[kind], name, summary)
        table.add_section()
    console().print(table)
    click.echo("--model also takes torchvision's classification models by name, or your own as package.module:factory.")
