"""What the entry points of plugins point to: frozen records that import no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    import click
    import torch
    from torch import nn

    from reweight_core.data.dataset import Dataset
    from reweight_core.data.examples import Examples
    from reweight_core.data.prepare import Corruption


@attrs.frozen
class Imported:
    """A function or class that is imported when it is first called.

    Attributes:
        target: ``package.module:name``.
        arguments: what it is called with before the arguments of the call.
        keywords: what it is called with by name.
    """

    target: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = attrs.field(factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        """Import the target and call it."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)(*self.arguments, *arguments, **self.keywords)


def imported(target: str, *arguments: Any, **keywords: Any) -> Imported:
    """Name what a record builds without importing it: ``build=imported("my_package.my_method:MyMethod")``.

    Args:
        target: ``package.module:name`` of a function or class.
        arguments: what it is to be called with before the arguments that core gives.
        keywords: what it is to be called with by name.
    """
    return Imported(target, arguments, keywords)


@attrs.frozen
class NoOptions:
    """Configuration class of a plugin that has no options."""


@attrs.frozen
class Context:
    """What a method or a component may know when it is built.

    Attributes:
        num_classes: number of classes C.
        train_size: number of training examples N; per-example state is indexed by position 0..N-1.
        seed: seed for generators of the method's own.
        weight_decay: weight decay of the classifier's optimizer.
        device: where the run's tensors lie.
        dtype: floating-point type of the model's parameters.
        model: the network, to be read only.
        train: the training examples with their observed labels.
        epochs: number of epochs that the run will train.
        steps: number of steps that it will take.
    """

    num_classes: int
    train_size: int
    seed: int
    weight_decay: float
    device: torch.device
    dtype: torch.dtype
    model: nn.Module
    train: Examples
    epochs: int
    steps: int


@attrs.frozen
class MethodPlugin:
    """A training method, registered under the entry-point group ``reweight.methods``.

    Attributes:
        name: name on the command line; must equal the entry point's name.
        summary: one line for ``reweight list``.
        build: ``build(config, context)`` returns the object that implements hooks; import torch inside it.
        config: attrs class whose fields, made with `reweight_core.option`, become options.
        needs_meta_set: whether a run without clean examples must be refused.
        reuses_weights: whether the method has a rule for steps without a look-ahead (``--meta-every``).
        looks_ahead: how it looks ahead: ``no``; ``network``: with a virtual step of the whole network, differentiated
            as ``--lookahead`` says; ``head``: with the last linear layer alone, in closed form.
        one_label: whether it is defined for one label an example only, so that nothing may mix or smooth targets.
        presets: better defaults of any option by the name of ``--preset``, then by option name (underscores).
    """

    name: str
    summary: str
    build: Callable[[Any, Context], object]
    config: type = NoOptions
    needs_meta_set: bool = False
    reuses_weights: bool = False
    looks_ahead: Literal["no", "network", "head"] = "no"
    one_label: bool = False
    presets: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)


@attrs.frozen
class ComponentPlugin:
    """Something to add to any method by ``--with``, registered under the group ``reweight.components``.

    Attributes:
        name: name on the command line; must equal the entry point's name.
        summary: one line for ``reweight list``.
        build: ``build(config, context)`` returns the object that implements hooks; import torch inside it.
        config: attrs class whose fields, made with `reweight_core.option`, become options ``--NAME-FIELD``.
        mixes_targets: whether targets are no longer one label an example.
        per_example: whether it keeps state by position in the training set.
    """

    name: str
    summary: str
    build: Callable[[Any, Context], object]
    config: type = NoOptions
    mixes_targets: bool = False
    per_example: bool = False


@attrs.frozen
class DataPlugin:
    """A dataset, registered under the entry-point group ``reweight.data``.

    Attributes:
        name: name on the command line; must equal the entry point's name.
        summary: one line for ``reweight list``.
        build: ``build(config)`` returns a `reweight_core.data.dataset.Dataset` of clean examples.
        config: attrs class whose fields, made with `reweight_core.option`, become options.
        defaults: better defaults of any option while this dataset is used, by option name
            (underscores); names that the chosen method does not declare are left alone.
    """

    name: str
    summary: str
    build: Callable[[Any], Dataset]
    config: type = NoOptions
    defaults: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class NoisePlugin:
    """A kind of label noise, registered under the entry-point group ``reweight.noise``.

    Attributes:
        name: the KIND of ``--noise KIND:ARGUMENT``; must equal the entry point's name.
        summary: one line for ``reweight list``.
        build: ``build(argument)`` parses the text after the colon (raising `UserError`) and returns
            ``corrupt(labels, num_classes, rng) -> labels``: int64 arrays of shape (N,), all draws from
            the numpy RandomState ``rng``.
        takes_file: whether the argument is the path of a file; a run's options keep it as an absolute one.
    """

    name: str
    summary: str
    build: Callable[[str], Corruption]
    takes_file: bool = False


@attrs.frozen
class ModelPlugin:
    """A network architecture, registered under the entry-point group ``reweight.models``.

    Attributes:
        name: name on the command line; must equal the entry point's name.
        summary: one line for ``reweight list``.
        build: ``build(input_shape, num_classes)`` with ``input_shape`` (channels, height, width)
            returns a module that maps (n, channels, height, width) to logits (n, num_classes).
    """

    name: str
    summary: str
    build: Callable[[tuple[int, ...], int], nn.Module]


@attrs.frozen
class TablePlugin:
    """A table of published figures with the settings behind them, registered under the group ``reweight.tables``.

    Attributes:
        name: the NAME of ``reweight reproduce NAME``; must equal the entry point's name.
        summary: one line for ``reweight list``.
        source: the paper and the table in it.
        path: the TOML file with the cells (`reweight_experiments.published`).
    """

    name: str
    summary: str
    source: str
    path: Path

    @classmethod
    def beside(cls, module: str, name: str, summary: str, source: str) -> TablePlugin:
        """Return the table in the file ``tables/NAME.toml`` beside a module.

        Args:
            module: the module's ``__file__``.
            name: the table's name.
            summary: one line for ``reweight list``.
            source: the paper and the table in it.
        """
        return cls(name, summary, source, Path(module).parent / "tables" / f"{name}.toml")


@attrs.frozen
class CommandPlugin:
    """A command of the program, registered under the group ``reweight.commands``.

    Attributes:
        name: the NAME of ``reweight NAME``; must equal the entry point's name.
        summary: one line for ``reweight --help``.
        command: ``package.module:name`` of the `click.Command`, which is imported when it is used.
    """

    name: str
    summary: str
    command: str

    def load(self) -> click.Command:
        """Import the command.

        Raises:
            Exception: whatever the import raises, or a `TypeError` if it is no command.
        """
        import click

        module, _, name = self.command.partition(":")
        try:
            command = getattr(import_module(module), name)
        except SystemExit as error:
            raise ImportError(f"importing {module} ends the program") from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.command} is of type {type(command).__name__}, not click.Command")
        return command
