"""``reweight plugins``."""

import json

import attrs
import click
from rich import box
from rich.console import Console
from rich.table import Table

from reweight_core import registry


@click.command(name="plugins", epilog=f"The environment variable {registry.ALLOW_LIST}=a,b loads only these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show every installed plugin: where it comes from, and whether it works."""
    rows = registry.status()
    if as_json:
        click.echo(json.dumps([attrs.asdict(row) for row in rows], indent=2))
        return
    table = Table(box=box.SIMPLE)
    for field in attrs.fields(registry.PluginStatus):
        table.add_column(field.name, no_wrap=field.name in ("name", "status"), overflow="fold", min_width=6)
    for row in rows:
        table.add_row(*attrs.astuple(row))
    Console(markup=False, emoji=False, highlight=False).print(table)
