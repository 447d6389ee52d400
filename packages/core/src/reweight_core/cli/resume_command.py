"""``reweight resume``."""

from pathlib import Path

import click

from reweight_core.cli.output_options import json_option, quiet_option
from reweight_core.cli.progress import Progress, show_result
from reweight_core.cli.run_argument import run_argument


@click.command(name="resume")
@run_argument
@quiet_option
@json_option
def command(run: Path, quiet: bool, as_json: bool) -> None:
    """Go on with the interrupted run in the folder RUN, from its newest checkpoint to its end.

    The result is that of a run without an interruption; where it could not be, because the data, the device or a
    version is another now, nothing is done.
    """
    from reweight_core.training.resume import resume

    with Progress(quiet or as_json) as progress:
        finished = resume(run, observers=[progress])
    show_result(finished.summary, finished.folder, quiet, as_json)
