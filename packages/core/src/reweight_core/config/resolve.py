"""The configuration of a run: how values given in several places are merged and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from reweight_core.config.options import Option, Owner, convert, fill, options_of, table
from reweight_core.config.run_config import OWNER, DataConfig, RunConfig
from reweight_core.errors import UserError, nearest
from reweight_core.plugins import registry

Config = TypeVar("Config", bound="DataConfig")


def core_options(config_class: type) -> dict[str, Option]:
    """List core's own options by name."""
    return table([Owner(OWNER, config_class)])


def owners_of(config_class: type, given: Mapping[str, Any]) -> list[Owner]:
    """List core and the plugins that the given names choose."""
    owners = [Owner(OWNER, config_class)]
    core = core_options(config_class)
    for kind in ("method", "data"):
        if kind in core:
            name = convert(core[kind], given.get(kind, core[kind].default))
            # help must work before any dataset is installed
            if kind not in given and name not in registry.names(kind):
                continue
            owners.append(Owner(name, registry.find(kind, name).config))
    if "with" in core:
        for name in convert(core["with"], given.get("with", _preset_of(given).get("with", ()))):
            owners.append(Owner.of_component(name, registry.find("component", name).config))
    names = [owner.name for owner in owners]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"'{name}' is chosen twice in this run (method, data and components); use one of them alone"
            )
    return owners


def known_options(config_class: type, given: Mapping[str, Any]) -> dict[str, Option]:
    """List every option of core and of the chosen plugins, defaults as the dataset and the preset want them."""
    owners = owners_of(config_class, given)
    options = table(owners)
    data = given.get("data", options["data"].default)
    better = dict(registry.find("data", data).defaults) if data in [owner.name for owner in owners] else {}
    if "preset" in options:
        preset = _preset_of(given)
        unknown = [] if "with" in given else [name for name in preset if name not in options]
        if unknown:
            raise UserError(f"--preset {given['preset']} sets unknown options: {', '.join(unknown)}")
        better |= preset
    if "epochs" in given:
        # steps rank above epochs: steps that nobody gave would leave the epochs without effect
        better.pop("steps", None)
    return {
        name: attrs.evolve(item, default=better[name]) if name in better else item for name, item in options.items()
    }


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


def configure(config_class: type[Config] = RunConfig, /, **given: Any) -> Config:  # type: ignore[assignment]
    """Build a configuration from option values by name (underscores), plugins' options included.

    Values rank: given here > the preset's > the dataset's better defaults > the option's default. The name of
    ``--with`` is a keyword of Python: ``configure(**{"with": ["mixup"]})``.

    Raises:
        UserError: for an unknown plugin, option or value.
    """
    options = known_options(config_class, given)
    for name in given:
        if name not in options:
            raise UserError(f"no option is called '{name}' here{nearest(name, options)}")
    values = {name: item.default for name, item in options.items()} | given
    plugins: dict[str, Any] = {}
    for kind in ("method", "data"):
        if kind in options:
            record = registry.find(kind, values[kind])
            plugins[f"{kind}_options"] = fill(Owner(record.name, record.config), values)
    if "with" in options:
        components = convert(options["with"], values["with"])
        plugins["component_options"] = tuple(
            fill(Owner.of_component(name, registry.find("component", name).config), values) for name in components
        )
    config: Config = fill(Owner(OWNER, config_class), values, **plugins)
    noise_of(config)
    test_share(config)
    return config


def noise_of(config: DataConfig) -> Any:
    """Return the corruption function that ``--noise`` asks for, or None (errors as `configure`)."""
    if config.noise is None:
        return None
    kind, colon, argument = config.noise.partition(":")
    if not colon:
        raise UserError(f"--noise {config.noise}: must be KIND:ARGUMENT, e.g. uniform:0.4")
    return registry.find("noise", kind).build(argument)


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


def read_file(path: Path, config_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read option values from a TOML file: core's at the top, a plugin's in the section of its name.

    Sections of installed plugins that this run does not use are skipped, so that one file can serve several
    methods.

    Args:
        path: the file.
        config_class: whose options the top of the file may set.
        given: values that rank above the file's (they may choose the plugins).

    Raises:
        UserError: if the file cannot be read or holds an unknown key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {path}: {error}") from None
    sections = {name: value for name, value in content.items() if isinstance(value, dict)}
    values = {name.replace("-", "_"): value for name, value in content.items() if name not in sections}
    owners = {owner.name: owner for owner in owners_of(config_class, values | dict(given))}
    core = core_options(config_class)
    for name in values:
        if name not in core:
            raise UserError(f"--config {path}: no option is called '{name}'{nearest(name, core)}")
    installed = {name for kind in ("method", "data", "component") for name in registry.names(kind)}
    for section, content_of_section in sections.items():
        if section not in installed:
            raise UserError(f"--config {path}: no plugin is called '{section}'{nearest(section, installed)}")
        if section not in owners:
            continue
        # in the section of its plugin an option needs no prefix
        declared = {item.name.removeprefix(owners[section].prefix): item.name for item in options_of(owners[section])}
        for key, value in content_of_section.items():
            name = key.replace("-", "_")
            if name not in declared:
                raise UserError(f"--config {path}: '{section}' has no option '{key}'{nearest(name, declared)}")
            values[declared[name]] = value
    return values


def as_values(config: DataConfig) -> dict[str, Any]:
    """Return every option of a configuration by name, plugins' included, ready for JSON and for `configure`.

    Paths are absolute, so that the values mean the same in any folder.
    """
    parts = [Owner(OWNER, type(config)), Owner(config.data, type(config.data_options))]
    configs: list[Any] = [config, config.data_options]
    if isinstance(config, RunConfig):
        parts.append(Owner(config.method, type(config.method_options)))
        parts += [
            Owner.of_component(*pair) for pair in zip(config.with_, map(type, config.component_options), strict=True)
        ]
        configs += [config.method_options, *config.component_options]
    values: dict[str, Any] = {}
    for owner, part in zip(parts, configs, strict=True):
        for item in options_of(owner):
            value = getattr(part, item.field)
            values[item.name] = str(value.absolute()) if isinstance(value, Path) else value
    if config.noise is not None:
        kind, _, argument = config.noise.partition(":")
        if registry.find("noise", kind).takes_file:
            values["noise"] = f"{kind}:{Path(argument).absolute()}"
    return values
