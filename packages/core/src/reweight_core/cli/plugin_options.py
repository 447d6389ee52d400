"""Commands whose options come from attrs classes: core's, and those of the plugins that the command line names."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from reweight_core.config.options import Option, options_of
from reweight_core.config.resolve import (
    KINDS_WITH_OPTIONS,
    configure,
    core_options,
    known_options,
    over,
    owner_of,
    read_file,
)
from reweight_core.config.run_config import OWNER, PLUGIN_OPTIONS, RunConfig
from reweight_core.errors import UserError
from reweight_core.plugins import registry

_GIVEN = "reweight.given"
_OPTIONS = "reweight.options"

_COLUMN = 26
"""Width of the flags in ``--help``; longer ones have a line of their own."""

_SHOWN = 4
"""Plugins that an error message names at most."""


class DeclaringCommand(click.Command, ABC):
    """A command some of whose options are declared by the plugins that its arguments name."""

    @abstractmethod
    def declared(self, ctx: click.Context, args: list[str]) -> Mapping[str, Option]:
        """Return the options, by name, that these arguments may hold beside the command's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """First pass over `args`, then click's own."""
        known = self.declared(ctx, args)
        own = {flag for parameter in super().get_params(ctx) for flag in parameter.opts}
        for item in known.values():
            if item.flag in own:
                raise UserError(
                    f"plugin '{item.owner}' declares {item.flag}, which this command has already: "
                    "report it to the plugin's author"
                )
        ctx.meta[_OPTIONS] = known
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            owners = _owners(error.option_name)
            if not owners:
                raise
            raise UserError(
                f"{error.option_name} is an option of {' and of '.join(owners)}, which this run does not use"
            ) from None
        except click.UsageError as error:
            # click does not say of a missing value whose it is
            error.ctx = error.ctx or ctx
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's parameters, the plugins' included once the first pass has found them."""
        own = super().get_params(ctx)
        known: dict[str, Option] = ctx.meta.get(_OPTIONS, {})
        return [*map(_click_option, known.values()), *own]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, core's in their groups, then those of each plugin."""
        known: dict[str, Option] = ctx.meta.get(_OPTIONS, {})
        width = formatter.width - _COLUMN - 4
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            flags, text = parameter.get_help_record(ctx) or ("", "")
            item = known.get(str(parameter.name))
            if item is not None:
                title = item.group.capitalize() or f"Options of {item.owner}"
                sections.setdefault(title, []).append((flags, _help(item, width)))
            elif flags:
                sections["Options"].append((flags, text))
        for title, records in sections.items():
            with formatter.section(title):
                # all sections have their texts in one column
                formatter.write_dl([(flags.ljust(_COLUMN), text) for flags, text in records], col_max=_COLUMN)


def take_given(ctx: click.Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """Take the declared options out of a command's parameters; return those that were given."""
    values = {name: parameters.pop(name) for name in ctx.meta[_OPTIONS]}
    return {name: value for name, value in values.items() if value not in (None, ())}


def first_pass(
    ctx: click.Context, args: Sequence[str], names: Sequence[str], own: Sequence[click.Option] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Read only some options of a command line: core's of these names, and `own`.

    Returns:
        the values that were given, and the arguments that are neither.
    """
    core = core_options(RunConfig)
    first = click.Command(
        ctx.command.name,
        params=[*own, *(click.Option([core[n].flag, n], multiple=core[n].multiple) for n in names)],
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )
    with first.make_context(ctx.info_name, list(args), resilient_parsing=True) as parsed:
        return {name: value for name, value in parsed.params.items() if value not in (None, ())}, parsed.args


def config_option() -> click.Option:
    """Return the option ``--config FILE``, the parameter ``config_file``."""
    help = "TOML file with options; a plugin's are in the section of its name. The command line wins."
    return click.Option(["--config", "config_file"], type=Path, metavar="FILE", help=help)


class PluginCommand(DeclaringCommand):
    """Reads its arguments twice: first the names of plugins and of a file, then the options that these declare.

    The callback receives ``config``, an instance of `config_class`, beside its own parameters.
    """

    def __init__(self, name: str, *, config_class: type, callback: Callable[..., Any], **kwargs: Any):
        super().__init__(name, callback=self._with_config(callback), **kwargs)
        self.config_class = config_class
        self.params.append(config_option())

    def declared(self, ctx: click.Context, args: list[str]) -> Mapping[str, Option]:
        """Those of core and of the chosen plugins; what a file says is kept for the callback."""
        core = core_options(self.config_class)
        choosing = [name for name, kind in PLUGIN_OPTIONS.items() if kind in KINDS_WITH_OPTIONS]
        names = [name for name in (*choosing, "preset") if name in core]
        given, _ = first_pass(ctx, args, names, [config_option()])
        file = given.pop("config_file", None)
        from_file = read_file(file, self.config_class, given) if file else {}
        ctx.meta[_GIVEN] = from_file
        known = known_options(self.config_class, over(given, from_file))
        # where the data are may decide defaults, which help is to show
        data = over(given, from_file).get("data", known["data"].default)
        own = [_click_option(item) for item in known.values() if item.owner == data]
        given |= first_pass(ctx, args, [], own)[0]
        return known_options(self.config_class, over(given, from_file))

    def _with_config(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        @click.pass_context
        def call(ctx: click.Context, /, config_file: Path | None, **parameters: Any) -> Any:
            given = over(take_given(ctx, parameters), ctx.meta[_GIVEN])
            return callback(config=configure(self.config_class, **given), **parameters)

        return call


def _owners(flag: str) -> list[str]:
    """List what chooses the installed plugins that declare an option: ``--data csv, folder``."""
    found = []
    for option, kind in PLUGIN_OPTIONS.items():
        if kind not in KINDS_WITH_OPTIONS:
            continue
        names = [name for name in registry.load_all(kind) if flag in _flags_of(kind, name)]
        if names:
            found.append(f"--{option} {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}")
    return found


def _flags_of(kind: str, name: str) -> set[str]:
    try:
        return {item.flag for item in options_of(owner_of(kind, name))}
    except UserError:
        # a plugin that this run does not use must not hide what is wrong with its arguments
        return set()


def _click_option(item: Option) -> click.Option:
    """Make the click option; its own default is None, so that a value that was given can be told."""
    if item.type is bool:
        return click.Option([f"{item.flag}/--no-{item.flag[2:]}", item.name], default=None)
    if item.choices:
        metavar = "NAME" if _many(item.choices) else None
        return click.Option([item.flag, item.name], type=click.Choice(item.choices), metavar=metavar, default=None)
    if item.multiple:
        return click.Option([item.flag, item.name], multiple=True, metavar=item.metavar)
    return click.Option([item.flag, item.name], type=item.type, metavar=item.metavar, default=None)


def _many(choices: tuple[str, ...]) -> bool:
    """Whether the choices are too long to stand beside the flag."""
    return len("|".join(choices)) > 50


def _help(item: Option, width: int) -> str:
    """Return what ``--help`` says of an option: what it does, which plugins it may choose, its default."""
    lines = _wrapped(item.help, width)
    if item.owner == OWNER and item.name in PLUGIN_OPTIONS:
        names = ", ".join(registry.names(PLUGIN_OPTIONS[item.name])) or "none"
        lines += _wrapped(f"Installed: {names}", width)
    if _many(item.choices):
        lines += _wrapped(f"One of: {', '.join(item.choices)}", width)
    default = ", ".join(item.default) if item.multiple else item.default
    if default not in (None, ""):
        shown = f"[default: {str(default).lower() if item.type is bool else default}]"
        if len(lines[-1]) + 2 + len(shown) > width:
            lines.append(shown)
        else:
            lines[-1] += f"  {shown}"
    # click keeps the lines of such a paragraph; its own wrapping would break names at their hyphens
    return "\b\n" + "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def plugin_command(config_class: type, **settings: Any) -> Callable[[Callable[..., Any]], PluginCommand]:
    """Turn a function with a ``config`` argument into a `PluginCommand`."""

    def decorate(function: Callable[..., Any]) -> PluginCommand:
        parameters = getattr(function, "__click_params__", [])
        return PluginCommand(
            settings.pop("name"),
            config_class=config_class,
            callback=function,
            params=list(reversed(parameters)),
            help=function.__doc__,
            **settings,
        )

    return decorate
