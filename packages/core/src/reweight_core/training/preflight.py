"""Trying what training will do, on a copy of the network and two images, before anything is written."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reweight_core.engine.lookahead import FD_LENGTH, STRATEGIES, Choice, LookAheadRequest, Strategy
from reweight_core.engine.passes import Passes
from reweight_core.engine.virtual_step import VirtualSGD
from reweight_core.errors import UserError, reason


def rehearse(
    model: nn.Module, inputs: Tensor, num_classes: int, strategy: Strategy | None, head: str | None = None
) -> None:
    """Run one forward and backward pass in train mode, and one look-ahead if training will look ahead.

    Args:
        model: the network; it stays as it is.
        inputs: two images as training gives them, (2, channels, height, width).
        num_classes: number of classes C.
        strategy: how the look-ahead is differentiated, or None for a method that has none.
        head: path of the network's last linear layer, or None.

    Raises:
        UserError: if one of them fails, or if the network draws random numbers that cannot be repeated.
    """
    device = inputs.device
    generator = torch.Generator(device)
    passes = Passes(copy.deepcopy(model).train(), generator, head=head)
    before = _global_random_state(device)
    attention = _AttentionSeen()
    try:
        with attention:
            passes.begin(inputs)
            logits = passes.forward()
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if found != (2, num_classes):
            raise UserError(f"in train mode the model must return logits {(2, num_classes)}, but returns {found}")
        D = (logits.detach().softmax(1) - 1 / num_classes).requires_grad_()
        passes.backward(D.detach())
        if strategy is not None:
            one = torch.ones((), device=device)
            # with a virtual step, and without one, where the real pass may come last
            for update in (VirtualSGD(one), None):
                passes.begin(inputs)
                look = strategy.start(LookAheadRequest(passes, inputs, lambda: D, update, one))
                look.close(F.cross_entropy(look.logits, torch.zeros(2, dtype=torch.int64, device=device))).backward()
                passes.backward(D.detach())
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"the model cannot be trained: {reason(error)}") from error
    if strategy is not None and attention.found:
        warnings.warn(
            "attention runs on its plain implementation where the look-ahead differentiates it: the fused ones have "
            "no rule for that",
            stacklevel=2,
        )
    if not torch.equal(before, _global_random_state(device)):
        raise UserError(
            "the model draws random numbers where they cannot be repeated (dropout inside attention or recurrent "
            "layers, alpha dropout, rrelu): set that dropout to 0 or use torch.nn.Dropout layers"
        )


class _AttentionSeen(TorchFunctionMode):
    """Finds out whether a network runs attention inside the ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= func in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
        return func(*args, **(kwargs or {}))


def _global_random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def rehearsed_lookahead(
    model: nn.Module,
    inputs: Tensor,
    num_classes: int,
    head: str | None,
    looks_ahead: Literal["no", "network", "head"],
    wanted: str,
) -> Choice:
    """Rehearse training (`rehearse`); return the look-ahead to begin with.

    Args:
        model: the network.
        inputs: two images as training gives them.
        num_classes: number of classes C.
        head: path of the network's last linear layer, or None.
        looks_ahead: how the method looks ahead, by its record.
        wanted: what ``--lookahead`` says; for ``auto``, forward mode if the network can, else double backward.
    """

    def rehearsed(name: str) -> Choice:
        rehearse(model, inputs, num_classes, STRATEGIES.get(name), head)
        return Choice(name, FD_LENGTH if name == "fd" else None)

    if looks_ahead == "no":
        return rehearsed("none")
    if looks_ahead == "head":
        return rehearsed("head")
    if wanted != "auto":
        return rehearsed(wanted)
    try:
        return rehearsed("jvp")
    except UserError as problem:
        chosen = rehearsed("double")
        warnings.warn(f"{problem}; looking ahead by double backward instead", stacklevel=2)
        return chosen
