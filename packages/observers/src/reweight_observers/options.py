"""Options of the observers."""

from __future__ import annotations

from pathlib import Path

import attrs

from reweight_core import option


@attrs.frozen
class TensorBoardConfig:
    """Options of ``--observe tensorboard``."""

    log_dir: Path | None = option(
        None, "Folder that gets a folder for the run. Default: the folder of the run itself.", metavar="DIR"
    )


@attrs.frozen
class TrackerConfig:
    """Options of ``--observe trackio`` and ``--observe wandb``."""

    project: str | None = option(
        None,
        "Project that the run is filed under. Default: what the environment variable TRACKIO_PROJECT or WANDB_PROJECT "
        "says, else reweight.",
        check=attrs.validators.min_len(1),
        metavar="NAME",
    )
    name: str | None = option(
        None, "Name of the run. Default: that of its folder.", check=attrs.validators.min_len(1), metavar="NAME"
    )
