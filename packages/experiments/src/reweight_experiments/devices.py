"""``--device cuda:0,cuda:1``: the GPUs of this machine, one run at a time on each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from reweight_core import UserError, resolve_device
from reweight_experiments.cells import texts_of

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs at a time, each a process; with --device cuda:0,cuda:1 at least one on each of these GPUs.",
)
"""How many runs are made at a time."""


def take_devices(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the options of runs, and the GPUs that they are spread over, none where one device is given or none.

    Each process sees one GPU only, so that all runs have the same option and go on with any.

    Raises:
        UserError: if several devices are given that are not the GPUs of a machine, or one comes twice.
    """
    given = options.get("device")
    if given is None or (isinstance(given, str) and "," not in given):
        return dict(options), []
    devices = texts_of("--device", given)
    for device in devices:
        if not re.fullmatch(r"cuda:\d+", device):
            raise UserError(f"--device {','.join(devices)}: several must be GPUs, cuda:0,cuda:1 for example")
    return {**options, "device": "cuda"}, devices


def slots_on(devices: Sequence[str], jobs: int) -> list[dict[str, str]]:
    """Return as many slots as runs are made at a time, each with the variables that show it one GPU.

    Args:
        devices: the GPUs, as `take_devices` gave them; none leaves them to the runs.
        jobs: number of runs at a time; with several GPUs it is at least one on each.

    Raises:
        UserError: if a GPU is not there.
    """
    if not devices:
        return [{} for _ in range(jobs)]
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    visible = []
    for device in devices:
        index = resolve_device(device).index
        visible.append(names[index] if names else str(index))
    return [{"CUDA_VISIBLE_DEVICES": visible[place % len(visible)]} for place in range(max(jobs, len(visible)))]
