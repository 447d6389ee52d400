"""What the entry points of plugins point to: frozen records that import no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    import click
    import numpy as np
    import torch
    from torch import Tensor, nn

    from reweight_core.data.dataset import Dataset
    from reweight_core.data.examples import Examples
    from reweight_core.data.prepare import Corruption
    from reweight_core.engine.network import Network, ParameterOptimizer
    from reweight_core.engine.outputs import Outputs
    from reweight_core.machine.together import Together


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
        meta: the clean examples that the data hold out, or None.
        batch_size: training batch size n.
        epochs: number of epochs that the options ask for.
        steps: number of steps in them; None in a loop of the user's own that does not say.
        lr: learning rate of the current step, a tensor without dimensions that keeps its address.
        new_network: ``new_network(name)`` returns a further `Network` of the run's architecture with initial weights
            of its own, its own optimizer and passes. Core saves, restores and evaluates it.
        new_optimizer: ``new_optimizer(name, parameters, **settings)`` returns a `ParameterOptimizer` of tensors of the
            plugin's own, by name; settings other than the run's may be given (``lr``, ``momentum``, ``weight_decay``).
            Core saves and restores the parameters and what the optimizer remembers.
        predict: ``predict(examples, model=None)`` returns the `Outputs` (``logits`` (N, C), ``features`` (N, d) or
            None) of the network, or of another one, for a set of examples: in eval mode, not augmented, between steps.
        best_network: ``best_network()`` returns a copy of the network as it was best on the validation set so far, or
            None before the first evaluation or without a validation set. An epoch is evaluated after `finish_epoch`.
        together: the processes of the run: ``rank``, ``size``, and ``total(tensor)``, the sum over them; in a step,
            `Step.total`, `Step.part` and `Step.whole` say the same.
        by_example: ``by_example(tensor)`` returns the tensor and notes that it has a row for each training example,
            (N, ...), which steps change, in place, in the rows of their own examples. In several processes each knows
            of its own; core brings the rows together before `finish_epoch`.
    """

    num_classes: int
    train_size: int
    seed: int
    weight_decay: float
    device: torch.device
    dtype: torch.dtype
    model: nn.Module
    train: Examples
    meta: Examples | None
    batch_size: int
    epochs: int
    steps: int | None
    lr: Tensor
    new_network: Callable[[str], Network]
    new_optimizer: Callable[..., ParameterOptimizer]
    predict: Callable[..., Outputs]
    best_network: Callable[[], nn.Module | None]
    together: Together
    by_example: Callable[[Tensor], Tensor]


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
        uses_meta_set: ``uses_meta_set(config)`` returns whether it uses clean examples with these options, for a method
            that can do without them though it looks ahead; None: if it needs them or looks ahead.
        one_label: whether it is defined for one label an example only, so that nothing may mix or smooth targets.
        final_network: ``final_network(model)`` returns a network of the structure that the hook `final_model` returns,
            whose weights are then read from the run; None if it has no such hook.
        presets: better defaults of any option by the name of ``--preset``, then by option name (underscores).
        several_processes: whether what it sums over a batch goes through `Step.total`, so that a run of several
            processes is that of one; without it such runs are refused.
    """

    name: str
    summary: str
    build: Callable[[Any, Context], object]
    config: type = NoOptions
    needs_meta_set: bool = False
    reuses_weights: bool = False
    looks_ahead: Literal["no", "network", "head"] = "no"
    uses_meta_set: Callable[[Any], bool] | None = None
    one_label: bool = False
    final_network: Callable[[nn.Module], nn.Module] | None = None
    presets: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    several_processes: bool = False


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
        needs_meta_set: whether a run without clean examples must be refused.
        final_network: as in `MethodPlugin`.
        several_processes: as in `MethodPlugin`.
    """

    name: str
    summary: str
    build: Callable[[Any, Context], object]
    config: type = NoOptions
    mixes_targets: bool = False
    per_example: bool = False
    needs_meta_set: bool = False
    final_network: Callable[[nn.Module], nn.Module] | None = None
    several_processes: bool = False


@attrs.frozen
class LossPlugin:
    """A training loss for any method, chosen by ``--loss``, registered under the group ``reweight.losses``.

    Attributes:
        name: name on the command line; must equal the entry point's name.
        summary: one line for ``reweight list``.
        build: ``build(config, context)`` returns the object with the hook `losses`, and others; import torch inside it.
        config: attrs class whose fields, made with `reweight_core.option`, become options ``--NAME-FIELD``.
        one_label: whether it is defined for one label an example only, so that nothing may mix or smooth targets.
        per_example: whether it keeps state by position in the training set, and so has no value for a meta batch.
        head: the last layer (``--head``) that it is defined for; None for any.
        defaults: better defaults of core's options while this loss is used, by option name (underscores).
        several_processes: as in `MethodPlugin`.
    """

    name: str
    summary: str
    build: Callable[[Any, Context], object]
    config: type = NoOptions
    one_label: bool = True
    per_example: bool = False
    head: Literal["cosine"] | None = None
    defaults: Mapping[str, Any] = attrs.field(factory=dict)
    several_processes: bool = False


@attrs.frozen
class ObserverPlugin:
    """Something that hears of a run and changes nothing, added by ``--observe``; group ``reweight.observers``.

    Attributes:
        name: name on the command line; must equal the entry point's name.
        summary: one line for ``reweight list``.
        build: ``build(config)`` returns the object with hooks of an observer; called before the data are read,
            sometimes with no run to follow, so it opens nothing.
        config: attrs class whose fields, made with `reweight_core.option`, become options ``--NAME-FIELD``.
    """

    name: str
    summary: str
    build: Callable[[Any], object]
    config: type = NoOptions


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
        fitted_defaults: ``fitted_defaults(config)`` returns more of them, which depend on the data themselves, their
            number for example, and rank above `defaults`. It is called whenever options are merged: it must be quick
            and fail for no files. None if there are none.
        read_new: ``read_new(config, path)`` reads examples without known labels for ``reweight predict`` and returns
            ``(images, names)``: an array like the dataset's images, (N, ...), and a name for each; as a third what
            `Dataset.representation` is now, if it has one. None if ``predict`` reads image files and tables by itself.
    """

    name: str
    summary: str
    build: Callable[[Any], Dataset]
    config: type = NoOptions
    defaults: Mapping[str, Any] = attrs.field(factory=dict)
    fitted_defaults: Callable[[Any], Mapping[str, Any]] | None = None
    read_new: Callable[[Any, Path], tuple[np.ndarray, Sequence[str]] | tuple[np.ndarray, Sequence[str], str]] | None = (
        None
    )


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
        needs_images: whether the function wants the images too: ``corrupt(labels, num_classes, rng, images)``, images
            an uint8 array (N, channels, height, width).
        needs_mask: whether it wants to know which of the dataset's M training examples these N are, after the test,
            meta and validation sets were taken: ``corrupt(labels, num_classes, rng, mask)``, bool (M,), N of it true.
    """

    name: str
    summary: str
    build: Callable[[str], Corruption]
    takes_file: bool = False
    needs_images: bool = False
    needs_mask: bool = False


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
        function: ``package.module:name`` of what does the same in Python: it is ``reweight_core.NAME`` where the
            package is installed; None if there is nothing.
    """

    name: str
    summary: str
    command: str
    function: str | None = None

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
