"""How often a run is saved: what ``--checkpoint-every`` says."""

from __future__ import annotations

import re
from typing import Any

import attrs

_TEXT = re.compile(r"(\d+(?:\.\d+)?) ?(step|min|epoch)s?")
_LARGEST = 1e9


@attrs.frozen
class Interval:
    """So many steps, minutes or epochs; `unit` is ``step``, ``min`` or ``epoch``."""

    number: float
    unit: str


def interval(text: str) -> Interval | None:
    """Read ``200steps``, ``5min`` or ``1epochs``; None for ``never``.

    Raises:
        ValueError: if it is nothing of these.
    """
    if text == "never":
        return None
    found = _TEXT.fullmatch(text)
    if found is None or not 0 < float(found[1]) <= _LARGEST or (found[2] != "min" and "." in found[1]):
        raise ValueError("must say of what: 200steps, 5min or 1epochs, or never")
    return Interval(float(found[1]), found[2])


def is_interval(instance: Any, attribute: Any, value: str) -> None:
    """Check an option whose text is one, as a validator of attrs."""
    try:
        interval(value)
    except ValueError as error:
        raise ValueError(f"'{attribute.name}' {value}: {error}") from None
