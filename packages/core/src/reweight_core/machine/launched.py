"""What torchrun, or `reweight train --processes`, told this process of itself; importing this imports no torch."""

from __future__ import annotations

import os

import attrs

LAUNCHER = "REWEIGHT_LAUNCHER"
"""Environment variable: the number of the process that started this one, where that is this program."""

MEETING = "REWEIGHT_MEETING"
"""Environment variable of process 0: the descriptor of the socket that it listens on, where this program opened it."""


@attrs.frozen
class Launched:
    """A process that torchrun or this program started.

    Attributes:
        rank: its number among all processes, from 0.
        world_size: their number.
        local_rank: its number on its machine, from 0.
        local_world_size: their number on its machine.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @classmethod
    def here(cls) -> Launched | None:
        """Return what this process is, or None if it was started as one that has no others."""
        if LAUNCHER not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))

    def variables(self) -> dict[str, str]:
        """Return the variables of the environment that say so, as torchrun names them."""
        return {name.upper(): str(number) for name, number in attrs.asdict(self).items()}


def is_first() -> bool:
    """Whether this process is the first of those that were started together, or the only one."""
    launched = Launched.here()
    return launched is None or launched.rank == 0
