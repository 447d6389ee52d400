"""The program ``reweight``."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module, metadata
from typing import Any, NoReturn

import click

from reweight_core.cli.commands import COMMANDS
from reweight_core.cli.launch import end_with_launcher, note_failure
from reweight_core.cli.output import told_output
from reweight_core.errors import DivergedError, UserError, nearest, on_one_line, reason
from reweight_core.machine.launched import Launched, is_first
from reweight_core.plugins import registry
from reweight_core.plugins.records import CommandPlugin


class _Commands(click.Group):
    """Loads a command's module when it is used, and knows the commands that plugins bring."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flag = error.option_name
            raise click.UsageError(
                f"{flag} is no option here; say what to do first: reweight COMMAND {flag}", ctx
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; where several processes are interrupted, the first alone says so."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            if is_first():
                raise
            # click itself would write an empty line
            raise click.Abort from interrupt

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(name for name in registry.names("command") if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name in COMMANDS:
            command: click.Command = import_module(f"reweight_core.cli.{name.replace('-', '_')}_command").command
            return command
        if name not in registry.names("command"):
            ctx.fail(f"no command is called '{name}'{nearest(name, self.list_commands(ctx))}")
        record: CommandPlugin = registry.find("command", name)
        try:
            return record.load()
        except Exception as error:
            source = registry.version_of("command", name)
            raise UserError(
                f"command '{name}' of {source} cannot be loaded: {reason(error)}; mend or uninstall that package"
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their summaries; of the plugins, only the records are imported."""
        plugins = {name: record.summary for name, record in registry.load_all("command").items()}
        with formatter.section("Commands"):
            formatter.write_dl(list((COMMANDS | {n: s for n, s in plugins.items() if n not in COMMANDS}).items()))


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: reweight train --method gdw --data digits --noise uniform:0.4",
)
@click.version_option(metadata.version("reweight-core"), prog_name="reweight")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train classifiers on noisy or unbalanced data by learning how much each example should count."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(args: list[str] | None = None) -> None:
    """Run the program; whatever the user can mend is one line on standard error and exit status 2, a lost run 1."""
    try:
        with warnings.catch_warnings(), told_output():
            warnings.showwarning = _show_warning
            # what libraries announce to their programmers is of no use to whoever runs this program
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            if not is_first():
                # what they warn of, process 0 does too
                warnings.simplefilter("ignore")
            arguments = sys.argv[1:] if args is None else args
            _refuse_other_bytes(arguments)
            end_with_launcher()
            launched = Launched.here()
            if launched is not None and launched.world_size > 1 and arguments[:1] not in (["train"], ["resume"]):
                raise UserError("torchrun: only reweight train and resume run in several processes")
            cli.main(args=args, prog_name="reweight", standalone_mode=False, obj=list(arguments))
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "reweight"
        _fail(f"{error.format_message()} (see {command} --help)", error)
    except click.ClickException as error:
        _fail(error.format_message(), error)
    except (click.Abort, KeyboardInterrupt) as interrupt:
        # click wraps the interrupt, whose notes say what is kept
        cause = interrupt.__cause__ or interrupt
        if is_first():
            click.echo("; ".join(["interrupted", *getattr(cause, "__notes__", [])]), err=True)
        sys.exit(getattr(cause, "status", 130))
    except BrokenPipeError:
        # whoever read our output has gone
        sys.exit(1)
    except MemoryError as error:
        _fail(f"memory is full: give a smaller image or batch size ({error})", error)
    except DivergedError as error:
        _fail(str(error), error, 1)
    except UserError as error:
        _fail(str(error), error)


def _refuse_other_bytes(arguments: list[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UserError(f"the argument {os.fsencode(argument)!r} is not UTF-8") from None


def _fail(message: str, error: BaseException, status: int = 2) -> NoReturn:
    line = on_one_line(message)
    if not note_failure(line, status, error) and is_first():
        click.echo(f"Error: {line}", err=True)
    # the status of a run of several processes is theirs
    sys.exit(getattr(error, "status", status))


def _show_warning(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
    click.echo(f"Warning: {on_one_line(str(message))}", err=True)
