"""The configuration of a loop of the user's own: the options of a run as far as a loop has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from reweight_core.config.options import options_of
from reweight_core.config.resolve import core_options, owner_of, plainly_configured
from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError, nearest
from reweight_core.plugins import registry

OPTIONS = ("lookahead", "virtual_step", "meta_every", "meta_batch_size", "meta_loss", "memory")
"""Core's options that a loop may give; those of the method, the loss and the components come beside them."""


def loop_config(
    method: str, loss: str, components: tuple[str, ...], seed: int, options: Mapping[str, Any]
) -> RunConfig:
    """Return the options of a run as far as a loop has them.

    Args:
        method: name of the method.
        loss: name of the loss.
        components: names of the components.
        seed: seed of all that is random.
        options: further options by name.

    Raises:
        UserError: for an unknown plugin, option or value, or an option that is the loop's own.
    """
    known = list(OPTIONS)
    for kind, names in (("method", [method]), ("loss", [loss]), ("component", list(components))):
        for name in names:
            known += [item.name for item in options_of(owner_of(kind, name))]
    for name in options:
        if name in known:
            continue
        whose = " (it is the loop's own)" if name in core_options(RunConfig) else nearest(name, known)
        raise UserError(f"no option is called '{name}' here{whose}")
    chosen = {"method": method, "loss": loss, "with": components, "seed": seed}
    config = plainly_configured({**options, **chosen})
    # whether the network has the last layer that a loss is defined for is the user's to know
    head = registry.find("loss", loss).head
    return config if head is None else attrs.evolve(config, head=head)
