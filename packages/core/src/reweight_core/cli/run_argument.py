"""The argument RUN of the commands that go on from a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from reweight_core.errors import UserError


def run_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument RUN, the folder of a run."""
    return click.argument("run", type=Path, callback=lambda ctx, parameter, run: a_run(run))(function)


def network_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--network``."""
    return click.option(
        "--network",
        type=click.Choice(["final", "best"]),
        default="final",
        show_default=True,
        help="The network that the run ends with (with --patience the best), or the best on the validation set.",
    )(function)


def a_run(run: Path) -> Path:
    """Return what may be the folder of a run.

    Raises:
        UserError: if it is certainly none.
    """
    # what reads the run imports torch, which takes seconds; a wrong name is told at once
    if not any((run / part).exists() for part in ("config.json", "checkpoints")):
        raise UserError(f"{run}: not the folder of a run; give what --out was, or one of the folders in runs/")
    return run
