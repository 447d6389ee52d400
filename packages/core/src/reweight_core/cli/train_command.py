"""``reweight train``."""

from typing import Any

from reweight_core.cli.plugin_options import plugin_command
from reweight_core.cli.progress import Progress, summary_table
from reweight_core.config.run_config import RunConfig


@plugin_command(
    RunConfig,
    name="train",
    epilog="Options of a method or dataset are listed with it: reweight train --method gdw --data cifar10 --help",
)
def command(config: Any) -> None:
    """Train a classifier with a re-weighting method; the run becomes a folder.

    \b
    reweight train --method gdw --data digits --noise uniform:0.4
    reweight train --method gdw --data cifar10-lt --imb 0.01
    reweight train --method l2rw --data folder --data-root photos --meta-size 100
    """
    from reweight_core.training.loop import train

    with Progress() as progress:
        run = train(config, observers=[progress])
    summary_table(run.summary, run.folder)
