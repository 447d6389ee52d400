"""Pusher functions P: how much an example is to be trusted, by what one step shows of it (section 5.5).

Each returns a score (n,), the higher the better, which the method averages over an example's visits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reweight_core import Context, Step

Pusher = Callable[[Step, Tensor], Tensor]
"""``pusher(step, meta_losses)``: meta_losses are the losses under the meta model, with the observed labels, (n,)."""


def meta_margin(step: Step, meta_losses: Tensor) -> Tensor:
    """How far the virtual step brings the loss down (Eq. 5)."""
    return step.losses - meta_losses


def negative_loss(step: Step, meta_losses: Tensor) -> Tensor:
    """Minus the loss: what is well recognised."""
    return -step.losses


def max_margin(step: Step, meta_losses: Tensor) -> Tensor:
    """Difference of the two largest probabilities: what the network is certain of, whatever the label."""
    largest = step.probabilities.topk(2, dim=1).values
    return largest[:, 0] - largest[:, 1]


def area_under_margin(step: Step, meta_losses: Tensor) -> Tensor:
    """Logit of the label less the largest other logit (Pleiss et al. 2020)."""
    of_label = step.logits.gather(1, step.labels[:, None]).squeeze(1)
    return of_label - torch.where(step.one_hot == 1, -torch.inf, step.logits).amax(1)


class ForgettingEvents:
    """Minus 1 where an example that was recognised is forgotten, or was never recognised (Toneva et al. 2019).

    Args:
        context: of the run.
    """

    def __init__(self, context: Context):
        self.was_right, self.ever_right = (
            context.by_example(torch.zeros(context.train_size, dtype=torch.bool, device=context.device))
            for _ in range(2)
        )

    def __call__(self, step: Step, meta_losses: Tensor) -> Tensor:
        """See `Pusher`."""
        right = step.logits.argmax(1) == step.labels
        forgotten = ~right & (self.was_right[step.ids] | ~self.ever_right[step.ids])
        self.was_right[step.ids] = right
        self.ever_right[step.ids] = self.ever_right[step.ids] | right
        return -forgotten.to(step.losses.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Who was right."""
        return {"was_right": self.was_right, "ever_right": self.ever_right}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.was_right.copy_(state["was_right"])
        self.ever_right.copy_(state["ever_right"])


PUSHERS: dict[str, Pusher] = {
    "meta-margin": meta_margin,
    "negative-loss": negative_loss,
    "max-margin": max_margin,
    "area-under-margin": area_under_margin,
}
"""The pushers without state, by the name of ``--pusher``; the other is `ForgettingEvents`."""
