"""``reweight plugins``."""

import json

import attrs
import click
from rich import box
from rich.console import Console
from rich.table import Table

from reweight_core.cli.main import COMMANDS
from reweight_core.plugins import registry


@click.command(name="plugins", epilog=f"The environment variable {registry.ALLOW_LIST}=a,b loads only these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show every installed plugin: where it comes from, and whether it works."""
    rows = [_beside_core(row) for row in registry.status()]
    if as_json:
        click.echo(json.dumps([attrs.asdict(row) for row in rows], indent=2))
        return
    table = Table(box=box.SIMPLE)
    for column in ("kind", "name", "distribution", "version", "status"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(row.kind, row.name, row.distribution, row.version, row.status)
    console = Console(markup=False, emoji=False, highlight=False)
    console.print(table)
    for row in rows:
        if row.error:
            console.print(f"{row.kind} '{row.name}' of {row.distribution}: {row.error}", soft_wrap=True)


def _beside_core(row: registry.PluginStatus) -> registry.PluginStatus:
    """Return what is to be said of a plugin; one that calls its command like one of core's is never used."""
    if row.kind != "command" or row.name not in COMMANDS or row.status == "off":
        return row
    return attrs.evolve(
        row, status="duplicate", error=f"core has a command '{row.name}', which is used: report it to the author"
    )
