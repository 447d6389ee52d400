"""Trying what training will do, on a few examples, before anything is written; the network stays as it is."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reweight_core.data.inputs import Inputs, length_of
from reweight_core.engine.lookahead import FD_LENGTH, STRATEGIES, Choice, LookAheadRequest, Strategy
from reweight_core.engine.passes import Passes
from reweight_core.engine.random_tape import NOT_BY_EXAMPLE, NOT_THE_SAME
from reweight_core.engine.virtual_step import VirtualSGD
from reweight_core.errors import UserError, reason

Draws = Literal["repeated", "kept", "free"]
"""What must be possible with a network's random draws: to have them again in further passes of a step, to go on with
them after an interruption, or nothing."""


def rehearse(
    model: nn.Module,
    inputs: Inputs,
    num_classes: int,
    strategy: Strategy | None,
    head: str | None = None,
    autocast: torch.dtype | None = None,
    draws: Draws = "repeated",
) -> None:
    """Run one forward and backward pass, and one look-ahead if training will look ahead.

    Args:
        model: the network, in train mode; it stays as it is.
        inputs: those of a few examples, two at least, as training gives them.
        num_classes: number of classes C.
        strategy: how the look-ahead is differentiated, or None for a method that has none.
        head: path of the network's last linear layer, or None.
        autocast: number type that the network computes in, or None for its parameters' own.
        draws: what must be possible with its random draws.

    Raises:
        UserError: if one of them fails, if the network draws random numbers by which that is not possible, if it does
            not compute the same twice where a step does, or if it runs parts of it again in its backward pass where
            that would give other numbers.
    """
    parameter = next((p for p in model.parameters() if p.requires_grad), None)
    if parameter is None:
        raise UserError("the model has no parameter to train: every one is frozen (requires_grad=False)")
    device, n = parameter.device, length_of(inputs)
    passes = Passes(model, torch.Generator(device), autocast, head)
    attention = _AttentionSeen()
    try:
        with _left_alone(model, device):
            before = _global_random_states(device)
            with attention:
                passes.begin(inputs)
                logits = passes.forward()
            if draws != "free":
                _refuse_global_draws(before, _global_random_states(device))
            if logits.shape != (n, num_classes):
                raise UserError(
                    f"in train mode the model must return logits {(n, num_classes)}, but returns {tuple(logits.shape)}"
                )
            sums = logits.detach().float().sum(1)
            if (logits >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
                warnings.warn(
                    "the model seems to return probabilities, and losses are of logits: leave its softmax out",
                    stacklevel=2,
                )
            if draws == "repeated":
                _refuse_unrepeatable(passes, inputs, logits.detach())
            D = (logits.detach().softmax(1) - 1 / num_classes).requires_grad_()
            failure = None
            with _reruns(model) as again:
                try:
                    passes.backward(D.detach())
                except RuntimeError as error:
                    failure = error
            if again and (strategy is not None or passes.draws):
                raise UserError(
                    "the model runs parts of it again in its backward pass (gradient checkpointing), where the "
                    "look-ahead's parameters and dropout masks are not known: turn that off (of a transformers model: "
                    'model.gradient_checkpointing_disable()); memory="lean" (--memory lean) saves memory too'
                )
            if failure is not None:
                raise failure
            if strategy is not None:
                one = torch.ones((), device=device)
                # with a virtual step, and without one, where the real pass may come last
                for update in (VirtualSGD(one), None):
                    passes.begin(inputs)
                    look = strategy.start(LookAheadRequest(passes, inputs, lambda: D, update, one))
                    labels = torch.zeros(n, dtype=torch.int64, device=device)
                    look.close(F.cross_entropy(look.logits, labels)).backward()
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


def rehearse_meta_batch(model: nn.Module, inputs: Inputs, autocast: torch.dtype | None = None) -> None:
    """Run one forward pass on clean examples as a look-ahead does (arguments as `rehearse`).

    Raises:
        UserError: if it fails.
    """
    device = next(p for p in model.parameters() if p.requires_grad).device
    passes = Passes(model, torch.Generator(device), autocast)
    try:
        with _left_alone(model, device), torch.no_grad():
            passes.forward_at(passes.parameters, inputs)
    except torch.OutOfMemoryError:
        raise
    except UserError as error:
        raise UserError(f"meta=: {error}") from error
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"meta=: the model takes the training examples, but not these, which must be of their kind: {reason(error)}"
        ) from error


def rehearse_shares(model: nn.Module, inputs: Inputs, more: Inputs) -> None:
    """Run two forward passes as one of several processes does, which draws for the examples of all.

    Args:
        model: the network, in train mode; it stays as it is.
        inputs: those of a few examples, as training gives them.
        more: those of another number.

    Raises:
        UserError: if what it draws does not grow with the number of examples: a weight's mask, or a first dimension
            that is another than the examples'.
    """
    device = next(p for p in model.parameters() if p.requires_grad).device
    passes = Passes(model, torch.Generator(device))
    by_example = []
    for batch in (inputs, more):
        with _left_alone(model, device), torch.no_grad():
            passes.begin(batch)
            passes.forward()
        n = length_of(batch)
        by_example.append([divmod(length, n) for length in passes.draws])
    if by_example[0] != by_example[1] or any(times == 0 or rest for times, rest in by_example[0]):
        raise UserError(NOT_BY_EXAMPLE)


def _refuse_unrepeatable(passes: Passes, inputs: Inputs, logits: Tensor) -> None:
    """Refuse a network whose pass gives other logits than `logits` when it is run again as a step does."""
    again: list[Tensor] = []

    def noting(found: Tensor) -> Tensor:
        again.append(found)
        return found

    try:
        passes.gradients_at({}, inputs, noting)
    except RuntimeError:
        # what fails behind the logits is told by the backward pass
        if not again:
            raise
    # the kernels of a GPU may add in another order
    tolerance = max(1e-4, 2 * torch.finfo(logits.dtype).eps) * float(logits.nan_to_num().abs().amax())
    if not torch.allclose(again[0], logits, rtol=0, atol=tolerance, equal_nan=True):
        raise UserError(NOT_THE_SAME)


@contextmanager
def _left_alone(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Bring buffers and gradients of a network and the global random generators back behind the block."""
    states = _global_random_states(device)
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        _set_global_random_states(device, states)
        with torch.no_grad():
            for module, name, buffer, kept in buffers:
                # a network may put another tensor in its place
                setattr(module, name, buffer.copy_(kept))
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def _reruns(model: nn.Module) -> Iterator[list[str]]:
    """Give the names of modules that run inside the block."""
    found: list[str] = []

    def noting(name: str) -> Any:
        return lambda module, positional: found.append(name)

    handles = [module.register_forward_pre_hook(noting(name)) for name, module in model.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class _AttentionSeen(TorchFunctionMode):
    """Finds out whether a network runs attention inside the ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= func in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
        return func(*args, **(kwargs or {}))


_States = tuple[list[Tensor], Any, Any]
"""Of the global random generators: torch's, Python's and NumPy's."""


def _global_random_states(device: torch.device) -> _States:
    of_torch = [torch.get_rng_state()]
    if device.type == "cuda":
        of_torch.append(torch.cuda.get_rng_state(device))
    return of_torch, random.getstate(), np.random.get_state()


def _set_global_random_states(device: torch.device, states: _States) -> None:
    of_torch, of_python, of_numpy = states
    torch.set_rng_state(of_torch[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(of_torch[1], device)
    random.setstate(of_python)
    np.random.set_state(of_numpy)


def _refuse_global_draws(before: _States, after: _States) -> None:
    if not all(map(torch.equal, before[0], after[0])):
        raise UserError(
            "the model draws random numbers where they cannot be repeated (dropout inside torch.nn.MultiheadAttention "
            "or recurrent layers, alpha dropout, rrelu): set that dropout to 0 or use torch.nn.Dropout layers"
        )
    of_numpy = (states[2] for states in (before, after))
    if before[1] != after[1] or not all(map(np.array_equal, *of_numpy)):
        raise UserError(
            "the model draws random numbers of Python or NumPy, which cannot be repeated: draw them by torch.rand"
        )


def rehearsed_lookahead(
    model: nn.Module,
    inputs: Inputs,
    num_classes: int,
    head: str | None,
    looks_ahead: Literal["no", "network", "head"],
    wanted: str,
    autocast: torch.dtype | None = None,
    draws: Draws = "repeated",
) -> Choice:
    """Rehearse training (`rehearse`); return the look-ahead to begin with.

    Args:
        model: the network, in train mode.
        inputs: those of a few examples, as training gives them.
        num_classes: number of classes C.
        head: path of the network's last linear layer, or None.
        looks_ahead: how the method looks ahead, by its record.
        wanted: what ``--lookahead`` says; for ``auto``, forward mode if the network can, else double backward.
        autocast: as for `rehearse`.
        draws: as for `rehearse`, where it does not look ahead.
    """

    def rehearsed(name: str) -> Choice:
        strategy = STRATEGIES.get(name)
        rehearse(model, inputs, num_classes, strategy, head, autocast, draws if strategy is None else "repeated")
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
