"""The weighting network V(loss; phi) of Meta-Weight-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reweight_core.engine.optimizers import load_state_tensors, state_tensors
from reweight_core.engine.state import part_of, prefixed
from reweight_core.machine.together import ALONE, Together


class WeightingNetwork:
    """A perceptron with one hidden layer that maps an example's loss to a weight in (0, 1), and its Adam optimizer.

    Source: Shu et al., NeurIPS 2019, section 3.2; Adam with weight decay as in the official code.

    Args:
        device: where the network lies.
        dtype: its number type.
        lr: learning rate of Adam.
        weight_decay: L2 penalty in Adam's gradient.
        hidden: width of the hidden layer.
        together: the processes of the run.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        lr: float,
        weight_decay: float,
        hidden: int,
        together: Together = ALONE,
    ):
        self._together = together
        self.network = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())
        self.network.to(device=device, dtype=dtype)
        self.phi: list[nn.Parameter] = list(self.network.parameters())
        for parameter in self.phi:
            parameter.grad = torch.zeros_like(parameter)
        # recordings need capturable, and it changes no number
        capturable = device.type == "cuda"
        self._optimizer = torch.optim.Adam(
            self.phi, lr=lr, weight_decay=weight_decay, fused=True, capturable=capturable
        )

    def __call__(self, losses: Tensor) -> Tensor:
        """Return V(losses; phi), shape (n,), attached to phi."""
        weights: Tensor = self.network(losses[:, None]).squeeze(1)
        return weights

    def descend(self, gradients: Sequence[Tensor]) -> None:
        """Take one step of the optimizer with the given gradients of phi; those of several processes are summed."""
        totals = self._together.totals(dict(zip(self._names, gradients, strict=True)))
        for parameter, gradient in zip(self.phi, totals.values(), strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
        self._optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return phi and the optimizer's state as tensors."""
        optimizer = state_tensors(self._optimizer, self._names)
        return prefixed("network", self.network.state_dict()) | prefixed("optimizer", optimizer)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self.network.load_state_dict(part_of(state, "network"))
        load_state_tensors(self._optimizer, self._names, part_of(state, "optimizer"))

    @property
    def _names(self) -> list[str]:
        return [name for name, _ in self.network.named_parameters()]
