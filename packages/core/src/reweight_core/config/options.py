"""Options declared once, as fields of attrs classes: flag, help, validation and saved value follow from them."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs

from reweight_core.errors import UserError, nearest, reason

_DECLARED = "reweight.option"

RESERVED = ("config", "help", "json", "quiet", "resume", "version")
"""Options that commands have beside those of runs."""

LARGEST = 3.4e38
"""Number that an option may be; larger ones are infinite in single precision."""


@attrs.frozen
class _Declared:
    help: str
    group: str
    changes_result: bool
    comma_list: bool
    metavar: str | None


def option(
    default: Any,
    help: str,
    *,
    check: Callable[..., Any] | None = None,
    group: str = "",
    changes_result: bool = True,
    comma_list: bool = False,
    metavar: str | None = None,
) -> Any:
    """Declare a field of a configuration class as an option of the command line.

    Args:
        default: value when nobody gives another; ``None`` for an optional one.
        help: what the option does, for ``--help``.
        check: an attrs validator (``attrs.validators.gt(0)``); it is skipped for ``None``.
        group: heading in ``--help``; by default the name of whoever declares it.
        changes_result: False for an option that says where or how a run is made (a path, a number of processes): runs
            that differ in it alone are runs of one setting.
        comma_list: whether its text is a list with commas, which a sweep must not take apart.
        metavar: what ``--help`` puts for the value (``FILE``); by default the type or the choices.
    """
    declared = _Declared(help, group, changes_result, comma_list, metavar)
    validator = attrs.validators.optional(check) if check is not None else None
    return attrs.field(default=default, validator=validator, kw_only=True, metadata={_DECLARED: declared})


@attrs.frozen
class Option:
    """One option of a configuration class, with its type resolved.

    Attributes:
        name: the option's name (underscores); the flag is ``--`` with hyphens.
        field: the field's name: the same, but for the name of a plugin before it, or a ``_`` behind a keyword.
        owner: who declares it: ``reweight``, or the plugin's name.
        type: ``str``, ``int``, ``float``, ``bool`` or ``Path``.
        choices: allowed values of a ``Literal`` field, else empty.
        optional: whether ``None`` is a value.
        multiple: whether it may be given several times, a ``tuple[str, ...]`` field; ``none`` alone gives nothing.
        default: default value, plugins' better defaults not yet applied.
        help: text for ``--help``.
        group: heading in ``--help``; empty for the owner's name.
        changes_result: whether another value can change a run's result.
        comma_list: whether its text is a list with commas.
        metavar: what ``--help`` puts for the value; None for the type or the choices.
        check: raises `ValueError` for a value that must not be, or None.
    """

    name: str
    field: str
    owner: str
    type: type
    choices: tuple[str, ...]
    optional: bool
    multiple: bool
    default: Any
    help: str
    group: str = ""
    changes_result: bool = True
    comma_list: bool = False
    metavar: str | None = None
    check: Callable[[Any], None] | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")


@attrs.frozen
class Owner:
    """Who declares options.

    Attributes:
        name: ``reweight``, or the plugin's name.
        config_class: the attrs class whose fields are the options.
        prefix: what stands before the options' names: for a component, a loss or an observer its name and ``_``, else
            nothing.
        kind: kind of plugin, for messages.
    """

    name: str
    config_class: type
    prefix: str = ""
    kind: str = "plugin"

    @classmethod
    def with_prefix(cls, name: str, config_class: type, kind: str) -> Owner:
        """Return an owner whose options begin with its name: a component, a loss or an observer."""
        return cls(name, config_class, name.replace("-", "_") + "_", kind)

    def mistake(self, problem: str) -> UserError:
        """Return the error for a declaration that its author must mend."""
        return UserError(f"{self.kind} '{self.name}' {problem}: report it to the plugin's author")


def options_of(owner: Owner) -> list[Option]:
    """List the options that an owner declares with `option`.

    Raises:
        UserError: if its class, a type or a default cannot be used, which is an error of the plugin.
    """
    try:
        fields = attrs.fields(attrs.resolve_types(owner.config_class))
    except Exception as error:
        # resolving a type runs the author's annotations, which may fail in any way
        raise owner.mistake(f"has options that cannot be read ({reason(error)})") from error
    options = [_option(owner, field) for field in fields if _DECLARED in field.metadata]
    for item in options:
        try:
            checked(item, item.default)
        except UserError as error:
            raise owner.mistake(f"declares a default that cannot be used ({error})") from None
    return options


def _option(owner: Owner, field: attrs.Attribute[Any]) -> Option:
    declared = field.metadata[_DECLARED]
    name = owner.prefix + field.name.rstrip("_")
    if name in RESERVED:
        raise owner.mistake(f"declares --{name}, which commands of the program have themselves")
    multiple = field.type == tuple[str, ...]
    try:
        kind, choices, optional = (str, (), False) if multiple else _plain_type(field.type)
    except TypeError as error:
        raise owner.mistake(f"declares the field '{field.name}', which {error}") from None
    return Option(
        name=name,
        field=field.name,
        owner=owner.name,
        type=kind,
        choices=choices,
        optional=optional,
        multiple=multiple,
        default=field.default,
        help=declared.help,
        group=declared.group,
        changes_result=declared.changes_result and owner.kind != "observer",
        comma_list=declared.comma_list,
        metavar=declared.metavar,
        check=partial(field.validator, None, field) if field.validator else None,
    )


def _plain_type(annotation: Any) -> tuple[type, tuple[str, ...], bool]:
    """Return type, choices, and whether None is a value; `TypeError` for what no flag can have."""
    alternatives = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        alternatives = list(typing.get_args(annotation))
    plain = [part for part in alternatives if part is not type(None)]
    optional = len(plain) < len(alternatives)
    if len(plain) == 1 and plain[0] in (str, int, float, bool, Path):
        return plain[0], (), optional
    if len(plain) == 1 and typing.get_origin(plain[0]) is Literal:
        choices = typing.get_args(plain[0])
        if all(isinstance(choice, str) for choice in choices):
            return str, choices, optional
    raise TypeError(
        "must be str, int, float, bool, Path, a Literal of texts, one of these | None, or tuple[str, ...], not "
        f"{annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else annotation}"
    )


def table(owners: Iterable[Owner]) -> dict[str, Option]:
    """Gather the options of several owners by name.

    Raises:
        UserError: if two owners declare the same option, which is an error of the plugin.
    """
    options: dict[str, Option] = {}
    for owner in owners:
        for item in options_of(owner):
            if item.name in options:
                raise owner.mistake(f"declares {item.flag}, which '{options[item.name].owner}' has already")
            options[item.name] = item
    return options


def convert(item: Option, value: Any) -> Any:
    """Bring a given value to the option's type, or raise `UserError`."""
    if value is None and item.optional:
        return None
    if item.multiple:
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(part, str) for part in values):
            raise UserError(f"{item.flag} {value!r}: must be a list of names")
        return () if tuple(values) == ("none",) else tuple(values)
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
    if item.type is int and not -(2**63) <= converted < 2**63:
        raise UserError(f"{item.flag} {value!r}: must have less than 64 bits")
    if item.type is float and not math.isfinite(converted):
        raise UserError(f"{item.flag} {value!r}: must be a finite number")
    if item.type is float and abs(converted) > LARGEST:
        raise UserError(f"{item.flag} {value!r}: must be a number of single precision, at most {LARGEST:g}")
    return converted


def checked(item: Option, value: Any) -> Any:
    """Bring a value to the option's type and check it, or raise `UserError`."""
    converted = convert(item, value)
    if item.check is not None:
        try:
            item.check(converted)
        except Exception as error:
            raise UserError(_by_flag(error, [item])) from None
    return converted


def fill(owner: Owner, values: Mapping[str, Any], **others: Any) -> Any:
    """Build an instance of an owner's configuration class from the values, by option name, that it declares.

    Raises:
        UserError: if a value has the wrong type or fails its check.
    """
    declared = options_of(owner)
    arguments = {item.field: convert(item, values[item.name]) for item in declared if item.name in values}
    try:
        return owner.config_class(**arguments, **others)
    except ValueError as error:
        raise UserError(_by_flag(error, declared)) from None


def _by_flag(error: Exception, options: Iterable[Option]) -> str:
    """Return the message of an attrs validator, which names a field in quotes, with the flag in its place."""
    text = str(error.args[0]) if error.args else reason(error)
    for item in options:
        text = text.replace(f"'{item.field}'", item.flag)
    return text
