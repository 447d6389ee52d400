"""The network that a run ends with, where a plugin makes another one of the trained network."""

from __future__ import annotations

import copy

from torch import nn

from reweight_core.errors import UserError, reason
from reweight_core.plugins import registry
from reweight_core.runs.checkpoint import Final
from reweight_core.runs.predict import build_final
from reweight_core.training.build import Parts


def final_network(parts: Parts, kept: nn.Module) -> tuple[nn.Module, Final] | None:
    """Ask the plugins for the network that the run ends with; return it, and who can build it again.

    Args:
        parts: what was trained.
        kept: the network that was evaluated after the last epoch, in eval mode.

    Returns:
        None if the run ends with `kept` itself.

    Raises:
        UserError: if the network could not be built again from its weights.
    """
    network, makers = parts.hooks.final_model(kept)
    if network is kept:
        return None
    # of a method and a component around it, the one that says how to build the network again
    able = [maker for maker in makers if getattr(registry.find(*maker), "final_network", None) is not None]
    kind, name = (able or makers)[0]
    final = Final(kind, name)
    try:
        again = build_final(final, copy.deepcopy(kept)).to(next(kept.parameters()).device)
        again.load_state_dict(network.state_dict())
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{kind} '{name}': final_model returned a network that cannot be built again from its weights "
            f"({reason(error)}); its record needs a fitting final_network: report it to the plugin's author"
        ) from error
    return network.eval(), final
