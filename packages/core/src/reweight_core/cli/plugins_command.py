"""``reweight plugins``."""

import json

import attrs
import click
from rich import box
from rich.table import Table

from reweight_core.cli.commands import COMMANDS
from reweight_core.cli.console import console
from reweight_core.cli.output_options import json_option
from reweight_core.config.resolve import KINDS_WITH_OPTIONS, check_plugin
from reweight_core.errors import UserError, reason
from reweight_core.plugins import registry


@click.command(name="plugins", epilog=f"The environment variable {registry.ALLOW_LIST}=a,b loads only these.")
@json_option
def command(as_json: bool) -> None:
    """Show every installed plugin: where it comes from, and whether it works."""
    rows = [_beside_core(_checked(row)) for row in registry.status()]
    if as_json:
        click.echo(json.dumps([attrs.asdict(row) for row in rows], indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("kind", "name", "distribution", "version", "status"):
        # what is too long for the terminal goes on in the next line, so that every word can be read
        table.add_column(column, overflow="fold", no_wrap=column in ("kind", "status"))
    for row in rows:
        table.add_row(row.kind, row.name, row.distribution, row.version, row.status)
    out = console()
    out.print(table)
    for row in rows:
        if row.error:
            whose = f"{row.kind} '{row.name}'"
            out.print(f"{whose} of {row.distribution}: {row.error.removeprefix(f'{whose} ')}", soft_wrap=True)


def _checked(row: registry.PluginStatus) -> registry.PluginStatus:
    """Call a plugin broken whose record loads, but whose options no run can use or whose command cannot be imported."""
    if row.status != "ok":
        return row
    try:
        if row.kind in KINDS_WITH_OPTIONS:
            check_plugin(row.kind, row.name)
        if row.kind == "command":
            registry.find("command", row.name).load()
    except UserError as error:
        return attrs.evolve(row, status="broken", error=str(error))
    except Exception as error:
        return attrs.evolve(row, status="broken", error=reason(error))
    return row


def _beside_core(row: registry.PluginStatus) -> registry.PluginStatus:
    """Return what is to be said of a plugin; one that calls its command like one of core's is never used."""
    if row.kind != "command" or row.name not in COMMANDS or row.status == "off":
        return row
    return attrs.evolve(
        row, status="duplicate", error=f"core has a command '{row.name}', which is used: report it to the author"
    )
