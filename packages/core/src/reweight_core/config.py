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
from reweight_core.options import Option, Owner, convert, fill, option, options_of, table
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
    meta_draw: Literal["balanced", "random"] = option(
        "balanced", "How the meta set is drawn: equally many of each class, or at random as in L2RW's official code."
    )
    val_size: int = option(0, "Clean validation examples, balanced, taken out of the training set.", check=ge(0))
    test_from: str = option(
        "folder",
        "Test set: folder (the dataset's own), split:SHARE to hold this share of every class out of the training set, "
        "or none.",
    )
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
    with_: tuple[str, ...] = option(
        (),
        "Component to add to the method (see `reweight list`), or none; again for another. They act in this order.",
    )
    preset: str | None = option(None, "Setting of the method's paper: other defaults, which options override.")
    model: str = option(
        "resnet32",
        "Network: a model plugin, one of torchvision's classification models by name, or your own as "
        "package.module:factory.",
    )
    init_from: Path | None = option(
        None, "Begin with the weights in this safetensors file; the last layer may have another number of classes."
    )
    pretrained: bool = option(False, "Begin with torchvision's pre-trained weights of the model (downloads them once).")
    epochs: int = option(80, "Epochs to train.", check=gt(0))
    steps: int | None = option(
        None, "Take this many steps instead of --epochs; the schedule is fitted to the epochs they begin.", check=gt(0)
    )
    batch_size: int = option(100, "Training batch size n.", check=gt(1))
    meta_batch_size: int = option(100, "Meta batch size m (at most the meta set).", check=gt(1))
    lr: float = option(0.1, "Initial learning rate.", check=gt(0))
    schedule: Literal["cosine", "cyclic", "step", "constant"] = option(
        "cosine",
        "Learning rate: cosine to 0, epoch by epoch; cyclic: half-cosines to 0 of 1, 2, 4, ... epochs, each from 0.9 "
        "of the peak before, step by step; step: times --lr-drop-factor at the epochs --lr-drops.",
    )
    lr_drops: str | None = option(
        None, "Epochs at which --schedule step lowers the rate, e.g. 160,180; default: at 80 and 90 % of the epochs."
    )
    lr_drop_factor: float = option(0.1, "Factor of each drop of --schedule step.", check=and_(gt(0), lt(1)))
    momentum: float = option(0.9, "Momentum of SGD (without Nesterov).", check=and_(ge(0), lt(1)))
    weight_decay: float = option(5e-4, "Weight decay on all parameters.", check=ge(0))
    augment: Literal["none", "crop", "flip", "crop-flip", "resized-crop"] | None = option(
        None,
        "Augmentation of training and meta images: crops of the padded image and flips; resized-crop, for images that "
        "are read while training: crops of random area and shape, and flips. Default: the dataset's own.",
    )
    workers: int | None = option(
        None,
        "Processes that read image files while training, for data that do not lie in memory; default: one a CPU core. "
        "Results are the same for any number.",
        check=ge(0),
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
    graph: Literal["auto", "on", "off"] = option(
        "auto",
        "Replay steps as CUDA graphs: on, off, or auto: on a GPU, unless a step cannot be recorded. Same results.",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = option(
        "auto",
        "Arithmetic of the network's passes: fp32; tf32 (products rounded, on a GPU); bf16 (by autocast); or auto: "
        "tf32 on a GPU where the weights of the first batch stay within 1 % of fp32's, else fp32.",
    )
    channels_last: bool = option(True, "Keep images and kernels in channels-last order.")
    device: str = option("auto", "auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, ...")
    checkpoint_every: int = option(10, "Epochs between checkpoints; the last epoch always has one.", check=gt(0))
    out: Path | None = option(None, "Folder of the run; default: a new one below runs/.")
    method_options: Any = NoOptions()
    component_options: tuple[Any, ...] = ()


def owners_of(config_class: type, given: Mapping[str, Any]) -> list[Owner]:
    """List core and the plugins that the given names choose."""
    owners = [Owner(OWNER, config_class)]
    core = table(owners)
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
    return {
        name: attrs.evolve(item, default=better[name]) if name in better else item for name, item in options.items()
    }


def _preset_of(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults of the preset that is asked for."""
    core = table([Owner(OWNER, RunConfig)])
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
    core = table([Owner(OWNER, config_class)])
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
