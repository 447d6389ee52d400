"""Options declared once, as fields of attrs classes: flag, help, validation and saved value follow from them."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from reweight_core.errors import UserError, nearest

HELP = "reweight.help"


def option(default: Any, help: str, *, check: Callable[..., Any] | None = None) -> Any:
    """Declare a field of a configuration class as an option of the command line.

    Args:
        default: value when nobody gives another; ``None`` for an optional one.
        help: what the option does, for ``--help``.
        check: an attrs validator (``attrs.validators.gt(0)``); it is skipped for ``None``.
    """
    validator = attrs.validators.optional(check) if check is not None else None
    return attrs.field(default=default, validator=validator, kw_only=True, metadata={HELP: help})


@attrs.frozen
class Option:
    """One option of a configuration class, with its type resolved.

    Attributes:
        name: field name (underscores); the flag is ``--`` with hyphens.
        owner: who declares it: ``reweight``, or the plugin's name.
        type: ``str``, ``int``, ``float``, ``bool`` or ``Path``.
        choices: allowed values of a ``Literal`` field, else empty.
        optional: whether ``None`` is a value.
        default: default value, plugins' better defaults not yet applied.
        help: text for ``--help``.
    """

    name: str
    owner: str
    type: type
    choices: tuple[str, ...]
    optional: bool
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")


def options_of(config_class: type, owner: str) -> list[Option]:
    """List the options that a configuration class declares with `option`."""
    found = []
    for field in attrs.fields(attrs.resolve_types(config_class)):
        if HELP not in field.metadata:
            continue
        kind, choices, optional = _plain_type(field.type)
        found.append(Option(field.name, owner, kind, choices, optional, field.default, field.metadata[HELP]))
    return found


def _plain_type(annotation: Any) -> tuple[type, tuple[str, ...], bool]:
    optional = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is Literal:
        return str, typing.get_args(annotation), optional
    if annotation not in (str, int, float, bool, Path):
        raise TypeError(f"an option must be str, int, float, bool, Path or a Literal, not {annotation}")
    return annotation, (), optional


def table(groups: Mapping[str, type]) -> dict[str, Option]:
    """Gather the options of several owners by name.

    Raises:
        UserError: if two owners declare the same option, which is an error of the plugin.
    """
    options: dict[str, Option] = {}
    for owner, config_class in groups.items():
        for item in options_of(config_class, owner):
            if item.name in options:
                raise UserError(
                    f"plugin '{owner}' declares {item.flag}, which '{options[item.name].owner}' has already: "
                    "report it to the plugin's author"
                )
            options[item.name] = item
    return options


def convert(item: Option, value: Any) -> Any:
    """Bring a given value to the option's type, or raise `UserError`."""
    if value is None and item.optional:
        return None
    if item.choices and value not in item.choices:
        known = ", ".join(item.choices)
        raise UserError(f"{item.flag} {value}: must be one of {known}{nearest(str(value), item.choices)}")
    if item.type is bool and not isinstance(value, bool):
        raise UserError(f"{item.flag} {value!r}: must be true or false")
    wrong_text = item.type is str and not isinstance(value, str)
    if wrong_text or (isinstance(value, bool) and item.type is not bool):
        raise UserError(f"{item.flag} {value!r}: must be {item.type.__name__}")
    if item.type is int and isinstance(value, float) and not value.is_integer():
        raise UserError(f"{item.flag} {value!r}: must be a whole number")
    try:
        converted = item.type(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{item.flag} {value!r}: must be {item.type.__name__}") from None
    if item.type is float and not math.isfinite(converted):
        raise UserError(f"{item.flag} {value!r}: must be a finite number")
    return converted


def fill(config_class: type, owner: str, values: Mapping[str, Any], **others: Any) -> Any:
    """Build an instance of a configuration class from the values among `values` that it declares.

    Raises:
        UserError: if a value has the wrong type or fails its check.
    """
    declared = {item.name: item for item in options_of(config_class, owner)}
    arguments = {name: convert(item, values[name]) for name, item in declared.items() if name in values}
    try:
        return config_class(**arguments, **others)
    except ValueError as error:
        # attrs validators begin their message with the field's name in quotes
        text = str(error.args[0])
        for name, item in declared.items():
            text = text.replace(f"'{name}'", item.flag)
        raise UserError(text) from None
