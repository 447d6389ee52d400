"""What torchrun told this process of itself; importing this imports no torch."""

from __future__ import annotations

import os

import attrs

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@attrs.frozen
class Launched:
    """A process that torchrun started.

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
        """Return what this process is, or None if torchrun did not start it."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        return cls(*(int(os.environ[name]) for name in _VARIABLES))


def is_first() -> bool:
    """Whether this process is the first of those that torchrun started, or the only one."""
    launched = Launched.here()
    return launched is None or launched.rank == 0
