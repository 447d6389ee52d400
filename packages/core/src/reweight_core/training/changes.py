"""What may be another when a run goes on, and what may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError
from reweight_core.machine.device import resolve_device
from reweight_core.runs import folder

MAY_DIFFER: Mapping[str, Literal["always", "allowed", "never"]] = {
    # how fast a run is, or who hears of it
    "workers": "always",
    "observers": "always",
    # a run goes on with the number that it began with, where the machine has so many cores or not
    "threads": "always",
    # arithmetic that may round otherwise, or another mathematics
    "versions": "allowed",
    "plugins": "allowed",
    "device": "allowed",
    "processes": "allowed",
    "epochs": "allowed",
    # another training altogether
    "data": "never",
}
"""What a resumed run is compared in with the run as it was -> whether it may differ; ``allowed``: by --allow-changes.

The options of a run are not among it: they are those of its config.json.
"""


def changes(record: folder.RunRecord, config: RunConfig) -> dict[str, list[str]]:
    """Say what is another than when a run began, or went on last: differences in words, by the rows of `MAY_DIFFER`.

    Args:
        record: the run as it was.
        config: the options that it goes on with.
    """
    found = record.environment.differences(folder.environment_of(config, resolve_device(config.device)))
    for name in ("processes", "epochs"):
        before, now = getattr(record.config, name), getattr(config, name)
        if before != now:
            found[name] = [f"{name}: {before}, now {now}"]
    return {what: differences for what, differences in found.items() if MAY_DIFFER[what] != "always"}


def refuse(run: object, found: Mapping[str, list[str]], allow_changes: bool) -> list[str]:
    """Return all differences in words, if a run may go on with them.

    Args:
        run: how the run is called.
        found: what `changes` returned, and ``data`` if these are others.
        allow_changes: whether those that may be allowed are.

    Raises:
        UserError: if it may not.
    """
    listed = [difference for differences in found.values() for difference in differences]
    never = [difference for what in found if MAY_DIFFER[what] == "never" for difference in found[what]]
    if never:
        raise UserError(f"{run}: the run cannot go on ({'; '.join(never)})")
    if listed and not allow_changes:
        raise UserError(
            f"{run}: the run cannot go on exactly as it began ({'; '.join(listed)}); --allow-changes goes on all the "
            "same"
        )
    return listed
