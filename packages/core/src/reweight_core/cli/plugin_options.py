"""Commands whose options come from attrs classes: core's, and those of the plugins that the command line names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from reweight_core.config.options import Option, Owner, options_of
from reweight_core.config.resolve import configure, known_options, read_file
from reweight_core.config.run_config import OWNER, RunConfig
from reweight_core.errors import UserError
from reweight_core.plugins import registry

_GIVEN = "reweight.given"
_OPTIONS = "reweight.options"


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
            raise UserError(f"{error.option_name} is an option of {' and of '.join(owners)}, not of this run") from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's parameters, the plugins' included once the first pass has found them."""
        own = super().get_params(ctx)
        known: dict[str, Option] = ctx.meta.get(_OPTIONS, {})
        return [*map(_click_option, known.values()), *own]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections by owner."""
        known: dict[str, Option] = ctx.meta.get(_OPTIONS, {})
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                owner = known[parameter.name].owner if parameter.name in known else OWNER
                title = "Options" if owner == OWNER else f"Options of {owner}"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


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
    core = {item.name: item for item in options_of(Owner(OWNER, RunConfig))}
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
        of_class = {item.name for item in options_of(Owner(OWNER, self.config_class))}
        names = [name for name in ("method", "data", "with", "preset") if name in of_class]
        given, _ = first_pass(ctx, args, names, [config_option()])
        file = given.pop("config_file", None)
        from_file = read_file(file, self.config_class, given) if file else {}
        ctx.meta[_GIVEN] = from_file
        return known_options(self.config_class, from_file | given)

    def _with_config(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        @click.pass_context
        def call(ctx: click.Context, /, config_file: Path | None, **parameters: Any) -> Any:
            given = ctx.meta[_GIVEN] | take_given(ctx, parameters)
            return callback(config=configure(self.config_class, **given), **parameters)

        return call


def _owners(flag: str) -> list[str]:
    """List the installed plugins that declare an option."""
    found = []
    for kind in ("method", "data", "component"):
        for name, record in registry.load_all(kind).items():
            owner = (Owner.of_component if kind == "component" else Owner)(name, record.config)
            if flag in {item.flag for item in options_of(owner)}:
                found.append(f"--{'with' if kind == 'component' else kind} {name}")
    return found


def _click_option(item: Option) -> click.Option:
    """Make the click option; its own default is None, so that a value that was given can be told."""
    shown = item.default
    flags = f"{item.flag}/--no-{item.flag[2:]}" if item.type is bool else item.flag
    kind: Any = click.Choice(item.choices) if item.choices else item.type
    text = (
        item.help if shown is None else f"{item.help}  [default: {str(shown).lower() if item.type is bool else shown}]"
    )
    if item.type is bool:
        return click.Option([flags, item.name], default=None, help=text)
    if item.multiple:
        names = f"  [default: {', '.join(shown)}]" if shown else ""
        return click.Option([flags, item.name], multiple=True, metavar="NAME", help=item.help + names)
    return click.Option([flags, item.name], type=kind, default=None, help=text)


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
