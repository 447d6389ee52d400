"""The program ``reweight``."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module, metadata
from typing import Any

import click

from reweight_core.errors import UserError

COMMANDS = ("train", "eval", "inspect", "list", "plugins")


class _Commands(click.Group):
    """Loads a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"reweight_core.cli.{name}_command").command
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: reweight train --method gdw --data digits --noise uniform:0.4",
)
@click.version_option(metadata.version("reweight-core"), prog_name="reweight")
def cli() -> None:
    """Train classifiers on noisy or unbalanced data by learning how much each example should count."""


def main(args: list[str] | None = None) -> None:
    """Run the program; whatever the user can mend is one line on standard error and exit status 2."""
    warnings.showwarning = _show_warning
    try:
        cli.main(args=args, prog_name="reweight", standalone_mode=False)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; finished epochs and checkpoints are kept in the run's folder", err=True)
        sys.exit(130)
    except UserError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


def _show_warning(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
    click.echo(f"Warning: {message}", err=True)
