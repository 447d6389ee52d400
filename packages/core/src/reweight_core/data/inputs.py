"""What a network takes of a batch, a tensor or a structure of tensors, and the logits in what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from reweight_core.errors import UserError

Inputs = Any
"""A tensor (n, ...); a tuple or list, which the network takes as positional arguments; or a mapping, as keywords."""


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments with which a network is called."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def mapped(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Return the structure with every tensor replaced; what is no tensor stays."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {name: mapped(function, part) for name, part in inputs.items()}
    return tuple(mapped(function, part) for part in inputs) if isinstance(inputs, tuple | list) else inputs


def tensors_of(inputs: Inputs) -> Iterator[Tensor]:
    """Give every tensor of the structure, in its order."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for part in inputs.values():
            yield from tensors_of(part)
    elif isinstance(inputs, tuple | list):
        for part in inputs:
            yield from tensors_of(part)


def length_of(inputs: Inputs) -> int:
    """Return the number of examples n: the length of the first tensor; 0 if there is none."""
    return next((len(tensor) for tensor in tensors_of(inputs) if tensor.dim()), 0)


def floating_type(inputs: Inputs) -> torch.dtype:
    """Return the floating-point type of the inputs, at least single precision; that if they have none."""
    found = next((tensor.dtype for tensor in tensors_of(inputs) if tensor.is_floating_point()), torch.float32)
    return torch.promote_types(found, torch.float32)


def joined(first: Inputs, second: Inputs) -> Inputs:
    """Return the inputs of two batches as those of one.

    Raises:
        UserError: if their structures differ, or the shapes of two examples.
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape[1:] == second.shape[1:]:
        return torch.cat([first, second])
    if isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        return {name: joined(part, second[name]) for name, part in first.items()}
    if isinstance(first, tuple | list) and isinstance(second, tuple | list) and len(first) == len(second):
        return tuple(map(joined, first, second))
    if not isinstance(first, Tensor) and type(first) is type(second) and first == second:
        return first
    raise UserError(
        "two batches cannot be joined for a common pass of the network: their examples differ in shape; pad all to one "
        "length"
    )


def logits_of(output: Any) -> Tensor:
    """Return the logits in what a network returned.

    Args:
        output: a tensor, a tuple or list that begins with one, or a mapping or an object with ``logits``.

    Raises:
        UserError: if there are none.
    """
    found = output
    if isinstance(found, Mapping):
        found = found.get("logits")
    elif not isinstance(found, Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        raise UserError(
            f"the model must return logits, a tensor (n, C), or something with them as .logits, but returns "
            f"{type(output).__name__}"
        )
    return found
