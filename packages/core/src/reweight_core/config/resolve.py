"""The configuration of a run: how values given in several places are merged and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from reweight_core.config.options import Option, Owner, checked, convert, fill, options_of, table
from reweight_core.config.run_config import OWNER, DataConfig, RunConfig
from reweight_core.errors import UserError, nearest
from reweight_core.plugins import registry
from reweight_core.plugins.blame import blamed

Config = TypeVar("Config", bound="DataConfig")

KINDS_WITH_OPTIONS = ("method", "loss", "data", "component", "observer")
"""Kinds of plugin that declare options."""

REPEATED = {"with": "component", "observe": "observer"}
"""Core's options that choose any number of plugins -> the kind of plugin."""


def over(higher: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    """Lay values over others: what the higher gives wins, and its ``epochs`` drop the lower's ``steps``."""
    # steps rank above epochs within one layer, so those of a lower one would leave the epochs without effect
    dropped = {"steps"} if "epochs" in higher else set()
    return {name: value for name, value in lower.items() if name not in dropped} | dict(higher)


def core_options(config_class: type) -> dict[str, Option]:
    """List core's own options by name."""
    return table([Owner(OWNER, config_class)])


def owner_of(kind: str, name: str) -> Owner:
    """Return a plugin as the owner of its options (errors as `registry.find`)."""
    config_class = registry.find(kind, name).config
    if kind in ("component", "loss", "observer"):
        return Owner.with_prefix(name, config_class, kind)
    return Owner(name, config_class, kind=kind)


def owners_of(config_class: type, given: Mapping[str, Any]) -> list[Owner]:
    """List core and the plugins that the given names choose."""
    owners = [Owner(OWNER, config_class)]
    core = core_options(config_class)
    for kind in ("method", "loss", "data"):
        if kind in core:
            name = convert(core[kind], given.get(kind, core[kind].default))
            # help must work before any dataset is installed
            if kind in given or name in registry.names(kind):
                owners.append(owner_of(kind, name))
    if "with" in core:
        chosen = convert(core["with"], given.get("with", _preset_of(given).get("with", ())))
        owners += [owner_of("component", name) for name in chosen]
    without_options = []
    if "observe" in core:
        observers = [owner_of("observer", name) for name in convert(core["observe"], given.get("observe", ()))]
        owners += [owner for owner in observers if options_of(owner)]
        # nothing goes by the name of such an observer, so it may be that of a dataset
        without_options = [owner.name for owner in observers if not options_of(owner)]
    for names in ([owner.name for owner in owners], without_options):
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"'{name}' is chosen twice in this run (method, loss, data, components and observers); use one of "
                    "them alone"
                )
    return owners


def known_options(config_class: type, given: Mapping[str, Any]) -> dict[str, Option]:
    """List every option of core and of the chosen plugins, defaults as the dataset and the preset want them."""
    owners = owners_of(config_class, given)
    options = table(owners)
    for owner in owners:
        if owner.kind in ("data", "loss"):
            defaults = registry.find(owner.kind, owner.name).defaults
            options = _with_defaults(options, defaults, f"{owner.kind} '{owner.name}'")
        if owner.kind == "data":
            options = _with_defaults(options, _fitted_defaults(owner, options, given), f"data '{owner.name}'")
    if "preset" in options:
        method = given.get("method", options["method"].default)
        whose = f"preset '{given.get('preset')}' of method '{method}'"
        options = _with_preset(options, whose, _preset_of(given), given)
        options["preset"] = _with_choices(options["preset"], method)
    return _without_dropped(options, given)


def _fitted_defaults(owner: Owner, options: Mapping[str, Option], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults that a data plugin has for these very data."""
    fitted = registry.find("data", owner.name).fitted_defaults
    if fitted is None:
        return {}
    try:
        config = fill(owner, {name: item.default for name, item in options.items()} | dict(given))
    except UserError:
        # options that cannot be are told where they are used
        return {}
    with blamed(f"data '{owner.name}'", "fitted_defaults", registry.module_of(fitted)):
        return dict(fitted(config))


def check_plugin(kind: str, name: str) -> None:
    """Raise `UserError` if the options of a plugin, or its better defaults, cannot be used.

    A run finds the same when it uses the plugin.
    """
    core = Owner(OWNER, RunConfig)
    owner = owner_of(kind, name)
    options = table([core, owner])
    if kind in ("data", "loss"):
        _with_defaults(options, registry.find(kind, name).defaults, f"{kind} '{name}'")
    if kind == "method":
        for title, preset in registry.find(kind, name).presets.items():
            components = [owner_of("component", part) for part in convert(options["with"], preset.get("with", ()))]
            _with_preset(table([core, owner, *components]), f"preset '{title}' of method '{name}'", preset, {})


def _with_defaults(options: Mapping[str, Option], defaults: Mapping[str, Any], whose: str) -> dict[str, Option]:
    """Put a plugin's better defaults in the options' place; those of options that this run lacks are left alone."""
    better = _without_dropped(options, defaults)
    for name in options.keys() & defaults.keys():
        try:
            better[name] = attrs.evolve(options[name], default=checked(options[name], defaults[name]))
        except UserError as error:
            raise UserError(
                f"{whose} gives a default that cannot be used ({error}): report it to the plugin's author"
            ) from None
    return better


def _without_dropped(options: Mapping[str, Option], higher: Mapping[str, Any]) -> dict[str, Option]:
    """Take the default from each option whose value a higher layer drops (`over`)."""
    kept = over(higher, options)
    return {name: item if name in kept else attrs.evolve(item, default=None) for name, item in options.items()}


def _with_preset(
    options: Mapping[str, Option], whose: str, preset: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Option]:
    """Put a preset's defaults in the options' place; those of its components need not fit components that are given."""
    unknown = [] if "with" in given else [name for name in preset if name not in options]
    if unknown:
        raise UserError(f"{whose} sets unknown options ({', '.join(unknown)}): report it to the plugin's author")
    return _with_defaults(options, preset, whose)


def _with_choices(preset: Option, method: str) -> Option:
    """Let ``--preset`` say which presets the method has."""
    presets = registry.find("method", method).presets
    if not presets:
        return attrs.evolve(preset, help=f"{preset.help} Method '{method}' has none.")
    return attrs.evolve(preset, choices=tuple(presets))


def _preset_of(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults of the preset that is asked for."""
    core = core_options(RunConfig)
    name, method = (convert(core[key], given.get(key, core[key].default)) for key in ("preset", "method"))
    if name is None:
        return {}
    presets: Mapping[str, Mapping[str, Any]] = registry.find("method", method).presets
    if name not in presets:
        known = f"it has {', '.join(presets)}" if presets else "it has none (presets belong to a --method)"
        raise UserError(f"--preset {name}: method '{method}' has no such preset{nearest(name, presets)}; {known}")
    return presets[name]


# mypy takes no default for a parameter whose type is a variable
def configure(config_class: type[Config] = RunConfig, /, **given: Any) -> Config:  # type: ignore[assignment]
    """Build a configuration from option values by name (underscores), plugins' options included.

    Values rank: given here > the preset's > the dataset's better defaults > the option's default, and ``epochs`` drop
    the ``steps`` of lower ranks. The name of ``--with`` is a keyword of Python: ``configure(**{"with": ["mixup"]})``.

    Raises:
        UserError: for an unknown plugin, option or value.
    """
    options = known_options(config_class, given)
    for name in given:
        if name not in options:
            raise UserError(f"no option is called '{name}' here{nearest(name, options)}")
    values = {name: item.default for name, item in options.items()} | given
    plugins: dict[str, Any] = {}
    for kind in ("method", "loss", "data"):
        if kind in options:
            plugins[f"{kind}_options"] = fill(owner_of(kind, values[kind]), values)
    for flag, kind in REPEATED.items():
        if flag in options:
            chosen = convert(options[flag], values[flag])
            plugins[f"{kind}_options"] = tuple(fill(owner_of(kind, name), values) for name in chosen)
    config: Config = fill(Owner(OWNER, config_class), values, **plugins)
    noise_of(config)
    test_share(config)
    fold_of(config)
    return config


def plainly_configured(values: Mapping[str, Any]) -> RunConfig:
    """Build one without the better defaults of datasets, losses and presets (errors as `configure`)."""
    core = Owner(OWNER, RunConfig)
    method = owner_of("method", values.get("method", "erm"))
    loss = owner_of("loss", values.get("loss", "cross-entropy"))
    components = [owner_of("component", name) for name in values.get("with", ())]
    known = table([core, method, loss, *components])
    for name in values:
        if name not in known:
            raise UserError(f"no option is called '{name}' here{nearest(name, known)}")
    return fill(
        core,
        values,
        method_options=fill(method, values),
        loss_options=fill(loss, values),
        component_options=tuple(fill(component, values) for component in components),
    )


def noise_parts(config: DataConfig) -> tuple[str, str] | None:
    """Return kind and argument of ``--noise KIND:ARGUMENT``, or None without noise (errors as `configure`)."""
    if config.noise is None:
        return None
    kind, colon, argument = config.noise.partition(":")
    if not colon:
        raise UserError(f"--noise {config.noise}: must be KIND:ARGUMENT, e.g. uniform:0.4 (see reweight list)")
    return kind, argument


def noise_of(config: DataConfig) -> Any:
    """Return the corruption function that ``--noise`` asks for, or None (errors as `configure`)."""
    parts = noise_parts(config)
    if parts is None:
        return None
    from reweight_core.plugins.noise import Noise

    kind, argument = parts
    record = registry.find("noise", kind)
    return Noise(kind, registry.build("noise", kind, argument), record.needs_images, record.needs_mask)


def test_share(config: DataConfig) -> float | None:
    """Return the share of the training set that ``--test-from`` holds out, or None (errors as `configure`)."""
    kind, _, argument = config.test_from.partition(":")
    if kind != "split":
        if config.test_from not in ("folder", "none"):
            raise UserError(f"--test-from {config.test_from}: must be folder, split:SHARE or none")
        return None
    try:
        share = float(argument)
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        raise UserError(f"--test-from {config.test_from}: the share must be between 0 and 1, e.g. split:0.1")
    return share


def fold_of(config: DataConfig) -> tuple[int, int] | None:
    """Return K and N of ``--val-fold K/N``, or None without it (errors as `configure`)."""
    if config.val_fold is None:
        return None
    if config.val_size:
        raise UserError("--val-fold and --val-size both make the validation set; give one of them")
    number, _, count = config.val_fold.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--val-fold {config.val_fold}: must be K/N, the K-th of N parts, e.g. 1/5")
    return int(number), int(count)


def read_file(path: Path, config_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read option values from a TOML file: core's at the top, a plugin's in the section of its name.

    Sections of installed plugins that this run does not use set nothing, so that one file can serve several methods.

    Args:
        path: the file.
        config_class: whose options the top of the file may set.
        given: values that rank above the file's (they may choose the plugins).

    Raises:
        UserError: if the file cannot be read or holds an unknown key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"--config {path}: {error}") from None
    sections = {name: value for name, value in content.items() if isinstance(value, dict)}
    values = {name.replace("-", "_"): value for name, value in content.items() if name not in sections}
    owners = {owner.name: owner for owner in owners_of(config_class, over(given, values))}
    core, known = core_options(config_class), table(owners.values())
    for name in values:
        if name in known and name not in core:
            section = known[name].owner
            raise UserError(f"--config {path}: '{name}' is an option of '{section}': write it below [{section}]")
        if name not in core:
            raise UserError(f"--config {path}: no option is called '{name}'{nearest(name, core)}")
    for section, own in sections.items():
        if not any(section in registry.names(kind) for kind in KINDS_WITH_OPTIONS):
            installed = [name for kind in KINDS_WITH_OPTIONS for name in registry.names(kind)]
            raise UserError(f"--config {path}: no plugin is called '{section}'{nearest(section, installed)}")
        declared = _declared_in(section, owners)
        for key, value in own.items():
            name = key.replace("-", "_")
            if name not in declared:
                raise UserError(f"--config {path}: '{section}' has no option '{key}'{nearest(name, declared)}")
            if section in owners:
                values[declared[name]] = value
    return values


def _declared_in(section: str, owners: Mapping[str, Owner]) -> dict[str, str]:
    """Map the keys that a plugin's section may have to the options' names; there an option needs no prefix."""
    if section in owners:
        found = [owners[section]]
    else:
        found = [owner_of(kind, section) for kind in KINDS_WITH_OPTIONS if section in registry.names(kind)]
    return {item.name.removeprefix(owner.prefix): item.name for owner in found for item in options_of(owner)}


def as_values(config: DataConfig) -> dict[str, Any]:
    """Return every option of a configuration by name, plugins' included, ready for JSON and for `configure`.

    Paths are absolute, so that the values mean the same in any folder.
    """
    sources: list[tuple[Owner, Any]] = [
        (Owner(OWNER, type(config)), config),
        (Owner(config.data, type(config.data_options)), config.data_options),
    ]
    if isinstance(config, RunConfig):
        sources.append((Owner(config.method, type(config.method_options)), config.method_options))
        sources.append((Owner.with_prefix(config.loss, type(config.loss_options), "loss"), config.loss_options))
        for name, options in zip(config.with_, config.component_options, strict=True):
            sources.append((Owner.with_prefix(name, type(options), "component"), options))
        for name, options in zip(config.observe, config.observer_options, strict=True):
            sources.append((Owner.with_prefix(name, type(options), "observer"), options))
    values: dict[str, Any] = {}
    for owner, source in sources:
        for item in options_of(owner):
            value = getattr(source, item.field)
            values[item.name] = str(value.absolute()) if isinstance(value, Path) else value
    noise = noise_parts(config)
    if noise is not None and registry.find("noise", noise[0]).takes_file:
        values["noise"] = f"{noise[0]}:{Path(noise[1]).absolute()}"
    return values
