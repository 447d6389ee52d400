"""``reweight train``."""

from typing import Any

import attrs
import click

from reweight_core.cli.launch import launch
from reweight_core.cli.output_options import json_option, quiet_option
from reweight_core.cli.plugin_options import plugin_command
from reweight_core.cli.progress import Progress, show_result
from reweight_core.config.compatibility import records_of, refuse_in_several_processes
from reweight_core.config.run_config import RunConfig
from reweight_core.machine.launched import Launched, is_first


@plugin_command(
    RunConfig,
    name="train",
    epilog="Options of a method or dataset are listed with it: reweight train --method gdw --data cifar10 --help",
)
@click.option(
    "--resume",
    type=click.Choice(["never", "auto"]),
    default="never",
    show_default=True,
    help="auto: go on with the run in --out if it is begun, so that the same line can be started again and again.",
)
@quiet_option
@json_option
def command(config: Any, resume: str, quiet: bool, as_json: bool) -> None:
    """Train a classifier with a re-weighting method; the run becomes a folder.

    \b
    reweight train --method gdw --data digits --noise uniform:0.4
    reweight train --method gdw --data cifar10-lt --imb 0.01
    reweight train --method l2rw --data folder --data-root photos --meta-size 100
    """
    launched = Launched.here()
    if launched is not None and config.processes == 1:
        config = attrs.evolve(config, processes=launched.world_size)
    if launched is None and config.processes > 1:
        refuse_in_several_processes(config, *records_of(config))
        launch(config.processes)
        return

    from reweight_core.training.loop import train
    from reweight_core.training.resume import train_or_resume

    with Progress(quiet or as_json or not is_first()) as progress:
        begin = train_or_resume if resume == "auto" else train
        run = begin(config, [progress] if is_first() else [])
    if is_first():
        show_result(run.summary, run.folder, quiet, as_json)
