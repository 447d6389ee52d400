"""The passes of one network within a step: the real one, one at other parameters, and the two products with J."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from reweight_core.errors import UserError
from reweight_core.randomness import RandomTape


class Passes:
    """Runs a network in the ways that a step with a look-ahead needs.

    Only `forward` changes the network's buffers (running BatchNorm statistics), once a step; the other passes work
    on copies. J is the Jacobian of the last forward's logits (n, C) with respect to the parameters: of the whole
    batch, so that the coupling of its examples by BatchNorm is in it.

    Args:
        model: the network.
        generator: source of dropout masks and the like.
    """

    def __init__(self, model: nn.Module, generator: torch.Generator):
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._model = model
        self._tape = RandomTape(generator)
        self._inputs: Tensor
        self._logits: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the real forward pass and return its logits (n, C), attached."""
        with self._tape.record():
            self._logits = self._model(inputs)
        self._inputs = inputs
        return self._logits

    def backward(self, D: Tensor) -> None:
        """Add J^T D to the gradients of the parameters, D of shape (n, C), and free the real pass."""
        self._logits.backward(gradient=D.to(self._logits.dtype))
        del self._logits, self._inputs

    def forward_at(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Return the logits under other parameters, with the batch statistics of these inputs."""
        with self._tape.fresh():
            return functional_call(self._model, (dict(parameters), self._copied_buffers()), (inputs,))

    def pullback(self, D: Tensor, create_graph: bool = False) -> dict[str, Tensor]:
        """Return J^T D for D of shape (n, C), by parameter name."""
        logits = self._logits
        if create_graph:
            # of a repeated pass: whoever calls backward() through the result must not free the real one
            with self._tape.replay(), _differentiable_attention():
                logits = functional_call(self._model, (self.parameters, self._copied_buffers()), (self._inputs,))
        gradients = torch.autograd.grad(
            logits,
            list(self.parameters.values()),
            grad_outputs=D.to(self._logits.dtype),
            retain_graph=True,
            create_graph=create_graph,
            materialize_grads=True,
        )
        return dict(zip(self.parameters, gradients, strict=True))

    def pushforward(self, tangents: Mapping[str, Tensor]) -> Tensor:
        """Return J v, shape (n, C), for a direction v given by parameter name.

        Raises:
            UserError: if an operator of the network has no forward-mode rule.
        """
        # gradient mode is on only so that the network's own no_grad regions can be told
        try:
            with torch.enable_grad(), fwad.dual_level(), self._tape.replay(), _differentiable_attention():
                duals = {name: fwad.make_dual(p.detach(), tangents[name]) for name, p in self.parameters.items()}
                logits = functional_call(self._model, (duals, self._copied_buffers()), (self._inputs,))
                _, product = fwad.unpack_dual(logits)
        except NotImplementedError as error:
            raise UserError(
                f"--lookahead jvp: the model has an operator without a forward-mode derivative "
                f"({str(error).splitlines()[0]}); use --lookahead double"
            ) from error
        if product is None:
            raise UserError("--lookahead jvp: the model's output does not depend on its parameters")
        return product

    def _copied_buffers(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self._model.named_buffers()}


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """Keep attention off its fused implementations, which have no rule for forward mode or a second derivative."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
