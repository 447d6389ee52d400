"""Co-teaching: Algorithm 1 of Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy
Labels" (NeurIPS 2018).

The official code divides the loss by the number of chosen examples twice, which its optimizer (Adam) does not notice;
here it is their mean, as in the paper.
"""

import torch
from torch import Tensor

from reweight_core import Context, Step, UserError, hookimpl
from reweight_method_selection.options import CoTeachingConfig


class CoTeaching:
    """Two networks see the same batches; each is trained on the examples of small loss of the other.

    The run's network is the first. The second has initial weights and an optimizer of its own.
    """

    def __init__(self, config: CoTeachingConfig, context: Context):
        self.tau, self.T_k = config.forget_rate, config.gradual_epochs
        self.second = context.new_network("second")
        if all(map(torch.equal, self.second.model.parameters(), context.model.parameters())):
            raise UserError(
                "--method co-teaching: both networks would begin with the same weights, and teach each other nothing; "
                "leave --init-from out, or give weights of another last layer"
            )
        self._chosen, self._same = (torch.zeros((), device=context.device) for _ in range(2))

    @hookimpl
    def generate_weights(self, step: Step) -> Tensor:
        """Lines 5-8 of Algorithm 1: n / k for the k examples that the second network chose, else 0; shape (n,)."""
        k = number_kept(step.n, remembered(self.tau, self.T_k, step.epoch))
        logits = self.second.logits(step.inputs, step.shares)
        losses, rows = step.losses_at(logits)
        by_first, by_second = small_losses(step.whole(step.losses), k), small_losses(step.whole(losses), k)
        self.second.update(step.part(by_first)[:, None] * rows / k)
        self._chosen += k
        self._same += (by_first * by_second).sum()
        return step.part(step.n / k * by_second)

    @hookimpl
    def finish_epoch(self, epoch: int) -> dict[str, float]:
        """The share of the chosen examples that both networks chose; at 1 the two teach each other nothing."""
        same = float(self._same / self._chosen.clamp(min=1))
        self._chosen.zero_()
        self._same.zero_()
        return {"same_choices": same}

    def state_dict(self) -> dict[str, Tensor]:
        """The counts of the epoch; core keeps the second network."""
        return {"chosen": self._chosen, "same": self._same}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self._chosen.copy_(state["chosen"])
        self._same.copy_(state["same"])


def remembered(tau: float, T_k: int, epoch: int) -> float:
    """Return R, the share of a batch that is trained on after `epoch` epochs: 1 - tau min(epoch / T_k, 1) (line 11)."""
    return 1 - tau * min(epoch / T_k, 1) if T_k else 1 - tau


def number_kept(n: int, share: float) -> int:
    """Return the number of examples that are `share` of a batch of n, rounded down, at least 1."""
    # 1 - 0.9 is a little less than 0.1
    return max(1, int(share * n + 1e-9))


def small_losses(losses: Tensor, k: int) -> Tensor:
    """Return 1 for the k examples of the smallest loss and 0 for the others, (n,); of equal losses the first."""
    return torch.zeros_like(losses).index_fill_(0, losses.argsort(stable=True)[:k], 1)
