"""``reweight resume``."""

from pathlib import Path

import click

from reweight_core.cli.launch import launch
from reweight_core.cli.output_options import json_option, quiet_option
from reweight_core.cli.progress import Progress, show_result
from reweight_core.cli.run_argument import run_argument
from reweight_core.machine.launched import Launched, is_first


@click.command(name="resume")
@run_argument
@click.option(
    "--processes", type=click.IntRange(min=1), help="Processes that train together. Default: as the run has it."
)
@click.option(
    "--allow-changes",
    is_flag=True,
    help="Go on also where the result may differ from that of an uninterrupted run; config.json says what changed.",
)
@click.option(
    "--epochs",
    "more_epochs",
    type=click.IntRange(min=1),
    metavar="MORE",
    help="Train so many epochs more than the run was to have; with --allow-changes, as schedules follow the length.",
)
@quiet_option
@json_option
def command(
    run: Path, processes: int | None, allow_changes: bool, more_epochs: int | None, quiet: bool, as_json: bool
) -> None:
    """Go on with the interrupted run in the folder RUN, from its newest checkpoint to its end.

    The result is that of a run without an interruption; where it could not be, because the device, the number of
    processes or of epochs or a version is another now, nothing is done unless --allow-changes is given.
    """
    from reweight_core.training.resume import resume, resumed_config

    launched = Launched.here()
    if processes is None and launched is not None:
        processes = launched.world_size
    more = more_epochs or 0
    config = resumed_config(run, processes, allow_changes, more)
    if launched is None and config.processes > 1:
        launch(config.processes)
        return
    with Progress(quiet or as_json or not is_first()) as progress:
        finished = resume(run, [progress] if is_first() else [], processes, allow_changes, more)
    if is_first():
        show_result(finished.summary, finished.folder, quiet, as_json)
