"""What a network says of a set of examples between steps: a pass in eval mode that leaves it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor, nn

from reweight_core.data.examples import Examples
from reweight_core.engine.head import find_head


@attrs.frozen(eq=False)
class Outputs:
    """What a network says of N examples, on their device, at least single precision.

    Attributes:
        logits: (N, C).
        features: what goes into its last layer, (N, d); None if it does not end in a linear one.
    """

    logits: Tensor
    features: Tensor | None


@torch.no_grad()
def outputs_of(
    model: nn.Module,
    examples: Examples,
    size: int,
    workers: int,
    autocast: torch.dtype | None = None,
    heads: tuple[type[nn.Module], ...] = (nn.Linear,),
) -> Outputs:
    """Run a network over all examples in their order, in eval mode, not augmented; it stays as it is.

    Args:
        model: the network.
        examples: the examples.
        size: examples in a batch.
        workers: processes that read them, where they are stored elsewhere.
        autocast: number type that the network computes in, or None for its parameters' own.
        heads: kinds of layers that count as the last one.
    """
    logits: list[Tensor] = []
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features.append(_at_least_single(inputs[0]))

    with _in_eval_mode(model):
        some = torch.arange(min(2, len(examples)), device=examples.labels.device)
        head = find_head(model, examples.batch(some, None).inputs, heads)
        handle = None if head is None else model.get_submodule(head).register_forward_pre_hook(keep)
        try:
            with torch.autocast(examples.labels.device.type, autocast, enabled=autocast is not None):
                for batch in examples.in_order(size, workers):
                    logits.append(_at_least_single(model(batch.inputs)))
        finally:
            if handle is not None:
                handle.remove()
    return Outputs(torch.cat(logits), torch.cat(features) if features else None)


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode inside the block, and behind it into the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
