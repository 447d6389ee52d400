"""``reweight resume``."""

from pathlib import Path

import click

from reweight_core.cli.progress import Progress, summary_table
from reweight_core.cli.run_argument import run_argument


@click.command(name="resume")
@run_argument
def command(run: Path) -> None:
    """Go on with the interrupted run in the folder RUN, from its newest checkpoint to its end.

    The result is that of a run without an interruption; where it could not be, because the data, the device or a
    version is another now, nothing is done.
    """
    from reweight_core.training.resume import resume

    with Progress() as progress:
        finished = resume(run, observers=[progress])
    summary_table(finished.summary, finished.folder)
