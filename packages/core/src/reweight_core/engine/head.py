"""The last linear layer of a network by itself: every pass through it is a product of small matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reweight_core.data.inputs import Inputs, arguments, logits_of
from reweight_core.engine.compiled import is_compiled, original, uncompiled
from reweight_core.engine.passes import Direction, Passes
from reweight_core.errors import UserError
from reweight_core.machine.together import Share


class Head:
    """The passes of `Passes` for the parameters of the last linear layer alone.

    With features z (n, d), the logits are z W^T + b, so J^T D = (D^T z, sum of D) and J v = z V_W^T + v_b.

    Args:
        passes: the passes of the whole network.

    Raises:
        UserError: if the network does not end in a linear layer that can be trained.
    """

    def __init__(self, passes: Passes):
        self._passes = passes
        self._weight, self._bias = f"{passes.head}.weight", f"{passes.head}.bias"
        names = [name for name in (self._weight, self._bias) if name in passes.parameters]
        if self._weight not in names:
            raise UserError(
                "looking ahead with the last linear layer: the model does not end in one with trainable weights"
            )
        self.parameters = {name: passes.parameters[name] for name in names}
        # a bias that is not trained is in the logits, but not in J
        self._fixed_bias = None if self._bias in names else passes.head_bias

    def forward_at(self, parameters: Direction, inputs: Inputs, shares: Sequence[Share] = ()) -> Tensor:
        """Return the logits under other parameters of the head (arguments as `Passes.forward_at`)."""
        return self._logits(self._passes.features_at(inputs, shares), parameters)

    def training_logits_at(self, parameters: Direction) -> Tensor:
        """Return the training batch's logits (n, C) under other parameters, on the features of the real pass."""
        return self._logits(self._features(), parameters)

    def pullback(self, D: Tensor) -> dict[str, Tensor]:
        """Return J^T D for D of shape (n, C), by parameter name."""
        dtype = self.parameters[self._weight].dtype
        gradients = {self._weight: D.T.to(dtype) @ self._features().to(dtype), self._bias: D.sum(0).to(dtype)}
        return {name: gradients[name] for name in self.parameters}

    def pushforward(self, v: Direction) -> Tensor:
        """Return J v, shape (n, C)."""
        return F.linear(self._features().to(v[self._weight].dtype), v[self._weight], v.get(self._bias))

    def _features(self) -> Tensor:
        self._passes.forward()
        assert self._passes.features is not None, "the look-ahead was given a head"
        return self._passes.features

    def _logits(self, features: Tensor, parameters: Direction) -> Tensor:
        weight = parameters[self._weight]
        return F.linear(features.to(weight.dtype), weight, parameters.get(self._bias, self._fixed_bias))


def find_head(model: nn.Module, inputs: Inputs, kinds: tuple[type[nn.Module], ...] = (nn.Linear,)) -> str | None:
    """Return the path of the linear layer whose output the network returns as its logits, or None.

    Args:
        model: the network; it is run once in eval mode.
        inputs: those of some examples.
        kinds: what counts as a linear layer.
    """
    model = original(model)
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: outputs.__setitem__(name, output)

    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    handles = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    modes = {module: module.training for module in model.modules()}
    positional, keywords = arguments(inputs)
    try:
        with torch.no_grad(), uncompiled(is_compiled(model)):
            logits = logits_of(model.eval()(*positional, **keywords))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    return next((name for name, output in outputs.items() if output is logits), None)
