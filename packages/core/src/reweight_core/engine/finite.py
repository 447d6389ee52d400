"""Finding out, without waiting for the device, that a run has gone wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reweight_core.errors import UserError
from reweight_core.machine.together import ALONE, Together

QUANTITIES = ("losses", "weights", "gradient", "meta_loss", "parameters")
"""What is watched, in the order in which a step computes it."""


_GIVEN_BY = {"losses": "losses", "weights": "generate_weights", "gradient": "manipulate_gradient"}
"""Quantity -> the hook that gives it."""


_NEVER = -(2**62)


class Health:
    """Remembers on the device the first step at which a quantity was not finite.

    Args:
        device: where the step runs.
    """

    def __init__(self, device: torch.device):
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._first_bad = torch.full((len(QUANTITIES),), -1, dtype=torch.int64, device=device)

    def start_after(self, step: int) -> None:
        """Count on from a step."""
        self._step.fill_(step)

    def note(self, **quantities: Tensor | None) -> Tensor:
        """Count a step and look at its quantities; return which are finite, bool by `QUANTITIES`.

        Args:
            quantities: by the names of `QUANTITIES`; None for one that the step has not.
        """
        self._step.add_(1)
        good = torch.stack(
            [
                torch.isfinite(value).all() if value is not None else torch.ones_like(self._step, dtype=torch.bool)
                for value in map(quantities.get, QUANTITIES)
            ]
        )
        self._first_bad.copy_(torch.where(good | (self._first_bad >= 0), self._first_bad, self._step))
        return good

    def forget(self) -> None:
        """Forget what was not finite, in place."""
        self._first_bad.fill_(-1)

    def check(self, implementers: Callable[[str], str] = lambda hook: "", together: Together = ALONE) -> None:
        """Read what was remembered; this waits for the device.

        Args:
            implementers: says which plugins implement a hook, or nothing if core alone does.
            together: the processes of the run; what one of them noted is told by all.

        Raises:
            UserError: if anything was not finite, naming the first step and quantity, and whoever gave it.
        """
        # the first step is the least, but -1 stands for none
        first = -together.greatest(torch.where(self._first_bad < 0, _NEVER, -self._first_bad))
        found = [(step, name) for step, name in zip(first.tolist(), QUANTITIES, strict=True) if step < -_NEVER]
        if found:
            step, name = min(found, key=lambda item: item[0])
            hook = _GIVEN_BY.get(name, "")
            giver = implementers(hook) if hook else ""
            whose = f" ({giver}: {hook})" if giver else ""
            to_do = ["lower --lr"] if step > 1 else [] if giver else ["look at the data and the initial weights"]
            to_do += ["report it to the plugin's author"] if giver else []
            raise UserError(
                f"step {step}: the {name.replace('_', ' ')} became infinite or not a number{whose}; "
                f"{', or '.join(to_do)}"
            )
