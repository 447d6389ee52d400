"""The configuration of a run: core's own options, and how values given in several places are merged."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import attrs
from attrs.validators import and_, ge, gt, le, lt

from reweight_core import registry
from reweight_core.errors import UserError, nearest
from reweight_core.options import HELP, Option, convert, fill, option, table
from reweight_core.records import NoOptions

Config = TypeVar("Config", bound="DataConfig")

OWNER = "reweight"
"""Owner of core's options in help texts and error messages."""


@attrs.frozen
class DataConfig:
    """Which data, and what is done to it before training."""

    data: str = option("digits", "Dataset plugin (see `reweight list`).")
    noise: str | None = option(
        None, "Corrupt the training labels: KIND:ARGUMENT, e.g. uniform:0.4 (see `reweight list`)."
    )
    imb: float | None = option(
        None,
        "Long tail: size of the smallest class / size of the largest, in (0, 1]. "
        "Class i keeps int(n_max * IMB^(i/(C-1))) examples, n_max being the smallest class there is.",
        check=and_(gt(0), le(1)),
    )
    meta_size: int | None = option(
        None,
        "Clean meta examples: balanced over the classes, taken out of the training set before "
        "corruption (or out of the dataset's own meta set). 0 for none.",
        check=ge(0),
    )
    val_size: int = option(0, "Clean validation examples, balanced, taken out of the training set.", check=ge(0))
    seed: int = option(
        0,
        "Seed of the split, the corruption, the initial weights, the order and the augmentation.",
        check=and_(ge(0), lt(2**32)),
    )
    data_options: Any = NoOptions()


@attrs.frozen
class RunConfig(DataConfig):
    """Everything a training run is made of; `configure` builds it, `reweight_core.train` runs it."""

    method: str = option("erm", "Method plugin (see `reweight list`).")
    model: str = option(
        "resnet32",
        "Network: a model plugin, one of torchvision's classification models by name, or your own as "
        "package.module:factory.",
    )
    epochs: int = option(80, "Epochs to train.", check=gt(0))
    steps: int | None = option(
        None, "Take this many steps instead of --epochs; the schedule is fitted to the epochs they begin.", check=gt(0)
    )
    batch_size: int = option(100, "Training batch size n.", check=gt(1))
    meta_batch_size: int = option(100, "Meta batch size m (at most the meta set).", check=gt(1))
    lr: float = option(0.1, "Initial learning rate; it follows a cosine to 0, epoch by epoch.", check=gt(0))
    momentum: float = option(0.9, "Momentum of SGD (without Nesterov).", check=and_(ge(0), lt(1)))
    weight_decay: float = option(5e-4, "Weight decay on all parameters.", check=ge(0))
    augment: Literal["none", "crop", "flip", "crop-flip"] | None = option(
        None, "Augmentation of training and meta images; default: the dataset's own."
    )
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "Optimizer of the network.")
    max_grad_norm: float | None = option(None, "Clip the norm of the real update's gradient.", check=gt(0))
    lookahead: Literal["auto", "jvp", "fd", "head", "double"] = option(
        "auto",
        "How to look ahead: jvp (exact, forward mode), fd (one more forward pass, approximate), head (last linear "
        "layer only), double (double backward), or auto: fd where its weights stay within 1 % of jvp's, else jvp, "
        "else double.",
    )
    virtual_step: Literal["plain", "optimizer", "off"] = option(
        "plain",
        "The look-ahead's step: plain SGD as in the papers, one of the optimizer itself, or none (theta_hat = theta).",
    )
    meta_every: int = option(
        1, "Look ahead in every K-th step only; methods without a rule for the steps between refuse K > 1.", check=gt(0)
    )
    memory: Literal["shared", "lean"] = option(
        "shared",
        "lean: run the training forward again after the look-ahead instead of keeping its graph meanwhile.",
    )
    precision: Literal["fp32", "bf16"] = option("fp32", "Number type of the network's passes (bf16 by autocast).")
    channels_last: bool = option(True, "Keep images and kernels in channels-last order.")
    device: str = option("auto", "auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, ...")
    checkpoint_every: int = option(10, "Epochs between checkpoints; the last epoch always has one.", check=gt(0))
    out: Path | None = option(None, "Folder of the run; default: a new one below runs/.")
    method_options: Any = NoOptions()


def plugin_classes(config_class: type, given: Mapping[str, Any]) -> dict[str, type]:
    """Return owner -> configuration class for core and the plugins that the given names choose."""
    owners: dict[str, type] = {OWNER: config_class}
    core = table(owners)
    for kind in ("method", "data"):
        if kind in core:
            name = convert(core[kind], given.get(kind, core[kind].default))
            # help must work before any dataset is installed
            if kind not in given and name not in registry.names(kind):
                continue
            record = registry.find(kind, name)
            if name in owners:
                raise UserError(f"--{kind} {name}: another part of the run has this name; use one of them alone")
            owners[name] = record.config
    return owners


def known_options(config_class: type, given: Mapping[str, Any]) -> dict[str, Option]:
    """List every option of core and of the chosen plugins, defaults as the dataset wants them."""
    owners = plugin_classes(config_class, given)
    options = table(owners)
    data = given.get("data", options["data"].default)
    better = registry.find("data", data).defaults if data in owners else {}
    return {
        name: attrs.evolve(item, default=better[name]) if name in better else item for name, item in options.items()
    }


def configure(config_class: type[Config] = RunConfig, /, **given: Any) -> Config:  # type: ignore[assignment]
    """Build a configuration from option values by name (underscores), plugins' options included.

    Values rank: given here > the dataset's better defaults > the option's default.

    Raises:
        UserError: for an unknown plugin, option or value.
    """
    options = known_options(config_class, given)
    for name in given:
        if name not in options:
            raise UserError(f"no option is called '{name}' here{nearest(name, options)}")
    values = {name: item.default for name, item in options.items()} | given
    plugins = {}
    for kind in ("method", "data"):
        if kind in options:
            record = registry.find(kind, values[kind])
            plugins[f"{kind}_options"] = fill(record.config, record.name, values)
    config: Config = fill(config_class, OWNER, values, **plugins)
    noise_of(config)
    return config


def noise_of(config: DataConfig) -> Any:
    """Return the corruption function that ``--noise`` asks for, or None (errors as `configure`)."""
    if config.noise is None:
        return None
    kind, colon, argument = config.noise.partition(":")
    if not colon:
        raise UserError(f"--noise {config.noise}: must be KIND:ARGUMENT, e.g. uniform:0.4")
    return registry.find("noise", kind).build(argument)


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
    owners = plugin_classes(config_class, values | dict(given))
    core = table({OWNER: config_class})
    for name in values:
        if name not in core:
            raise UserError(f"--config {path}: no option is called '{name}'{nearest(name, core)}")
    installed = {name for kind in ("method", "data") for name in registry.names(kind)}
    for section, content_of_section in sections.items():
        if section not in installed:
            raise UserError(f"--config {path}: no plugin is called '{section}'{nearest(section, installed)}")
        if section not in owners:
            continue
        declared = table({section: owners[section]})
        for key, value in content_of_section.items():
            name = key.replace("-", "_")
            if name not in declared:
                raise UserError(f"--config {path}: '{section}' has no option '{key}'{nearest(name, declared)}")
            values[name] = value
    return values


def as_values(config: DataConfig) -> dict[str, Any]:
    """Return every option of a configuration by name, plugins' included, ready for JSON and for `configure`."""
    values: dict[str, Any] = {}
    for part in (config, config.data_options, getattr(config, "method_options", NoOptions())):
        for field in attrs.fields(type(part)):
            if HELP in field.metadata:
                value = getattr(part, field.name)
                values[field.name] = str(value.absolute()) if isinstance(value, Path) else value
    return values
