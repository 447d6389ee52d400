"""Options, methods and components that cannot go together, found before anything is built."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from reweight_core.config.resolve import core_options
from reweight_core.config.run_config import RunConfig
from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.blame import blamed
from reweight_core.plugins.records import ComponentPlugin, LossPlugin, MethodPlugin
from reweight_core.plugins.registry import module_of

GIVE_CLEAN = "give --meta-size N to take N trusted ones out of the training set, or data with a meta set of their own"
"""What to do where clean examples are missing."""


def refuse_misfits(
    config: RunConfig,
    plugin: MethodPlugin,
    loss: LossPlugin,
    components: Mapping[str, ComponentPlugin],
    has_meta_set: bool,
) -> None:
    """Raise `UserError` for what cannot be trained as the options say; warn of what is of little use.

    Args:
        config: the options.
        plugin: the method's record.
        loss: the loss's record.
        components: the components' records by name.
        has_meta_set: whether there are clean examples.
    """
    if plugin.needs_meta_set and not has_meta_set:
        raise UserError(
            f"method '{config.method}' needs clean examples: {GIVE_CLEAN}, or choose a method that needs none "
            "(reweight list)"
        )
    refuse_in_several_processes(config, plugin, loss, components)
    if config.plant and not has_meta_set:
        raise UserError(f"--plant {config.plant}: there are no clean examples to plant: {GIVE_CLEAN}")
    if config.meta_use == "both" and not has_meta_set:
        raise UserError(f"--meta-use both: there are no clean examples to train on: {GIVE_CLEAN}")
    if config.val_size == 0 and config.val_fold is None:
        _refuse_without_validation(config)
    for name, component in components.items():
        if component.needs_meta_set and not has_meta_set:
            raise UserError(f"--with {name}: needs clean examples: {GIVE_CLEAN}")
        if plugin.one_label and component.mixes_targets:
            raise UserError(
                f"--with {name}: method '{config.method}' is defined for one label an example, which this changes"
            )
        if loss.one_label and component.mixes_targets:
            raise UserError(
                f"--with {name}: loss '{config.loss}' is defined for one label an example, which this changes"
            )
    if loss.head is not None and config.head != loss.head:
        raise UserError(f"--head {config.head}: loss '{config.loss}' is defined for --head {loss.head}")
    if config.meta_loss == "training":
        if plugin.looks_ahead == "head":
            raise UserError(f"--meta-loss training: method '{config.method}' has an objective of its own")
        if loss.per_example:
            raise UserError(
                f"--meta-loss training: loss '{config.loss}' keeps what it learns by training example, so it has no "
                "value for a clean one"
            )
    if plugin.looks_ahead == "head" and config.lookahead not in ("auto", "head"):
        raise UserError(
            f"--lookahead {config.lookahead}: method '{config.method}' looks ahead with the last linear layer only"
        )
    if plugin.looks_ahead == "head" and config.virtual_step != "plain":
        raise UserError(
            f"--virtual-step {config.virtual_step}: method '{config.method}' takes a virtual step of its own"
        )
    if config.head == "cosine" and plugin.looks_ahead == "head":
        raise UserError(
            f"--head cosine: method '{config.method}' looks ahead with a last linear layer; give --head linear"
        )
    if config.head == "cosine" and plugin.looks_ahead == "network" and config.lookahead == "head":
        raise UserError("--lookahead head: is for a last linear layer; give --head linear or another --lookahead")
    if plugin.looks_ahead == "no":
        _warn_of_lookahead_options(config)
    elif config.meta_every > 1 and not plugin.reuses_weights:
        raise UserError(
            f"--meta-every {config.meta_every}: method '{config.method}' has no rule for steps without a look-ahead"
        )
    if config.virtual_step == "optimizer" and config.max_grad_norm is not None:
        raise UserError(
            "--virtual-step optimizer cannot follow --max-grad-norm: clipping a norm mixes all gradients; "
            "use --virtual-step plain"
        )
    if plugin.looks_ahead != "no" and config.virtual_step == "optimizer" and config.optimizer != "sgd":
        warnings.warn(
            f"--virtual-step optimizer: the first steps of {config.optimizer} follow little but the gradient's "
            "sign, so their look-aheads say little",
            stacklevel=3,
        )


def records_of(config: RunConfig) -> tuple[MethodPlugin, LossPlugin, dict[str, ComponentPlugin]]:
    """Return the records of the method, the loss and the components that the options name."""
    components = {name: registry.find("component", name) for name in config.with_}
    return registry.find("method", config.method), registry.find("loss", config.loss), components


def refuse_in_several_processes(
    config: RunConfig, plugin: MethodPlugin, loss: LossPlugin, components: Mapping[str, ComponentPlugin]
) -> None:
    """Refuse plugins that do not say that they can train in several processes (arguments as `refuse_misfits`)."""
    if config.processes == 1:
        return
    able = {
        f"method '{config.method}'": plugin.several_processes,
        f"loss '{config.loss}'": loss.several_processes,
        **{f"component '{name}'": component.several_processes for name, component in components.items()},
    }
    for label, is_able in able.items():
        if not is_able:
            raise UserError(f"--processes {config.processes}: {label} does not support several processes yet")
    if config.device not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"--device {config.device}: each of {config.processes} processes has a GPU of its own; give cuda"
        )
    for flag, size in (("--batch-size", config.batch_size), ("--meta-batch-size", config.meta_batch_size)):
        if size < 2 * config.processes:
            raise UserError(
                f"{flag} {size}: each of {config.processes} processes needs two examples of every batch; give "
                f"{2 * config.processes} or more, or fewer --processes"
            )


def uses_clean_examples(config: RunConfig, plugin: MethodPlugin, components: Mapping[str, ComponentPlugin]) -> bool:
    """Return whether a run has a use for clean examples beside training on them (arguments as `refuse_misfits`)."""
    if any(component.needs_meta_set for component in components.values()):
        return True
    if plugin.uses_meta_set is not None:
        with blamed(f"method '{plugin.name}'", "uses_meta_set", module_of(plugin.uses_meta_set)):
            return plugin.uses_meta_set(config.method_options)
    return plugin.needs_meta_set or plugin.looks_ahead != "no"


def _refuse_without_validation(config: RunConfig) -> None:
    """Refuse what is judged by a validation set."""
    known = core_options(RunConfig)
    for name in ("patience", "best_by"):
        value = getattr(config, name)
        if value != known[name].default:
            raise UserError(
                f"{known[name].flag} {value}: is judged by a validation set, and there is none: give --val-size N, "
                "or --val-fold K/N"
            )


def _warn_of_lookahead_options(config: RunConfig) -> None:
    """Warn once of all that was asked of a look-ahead where the method takes none."""
    known = core_options(RunConfig)
    asked = [
        f"{known[name].flag} {getattr(config, name)}"
        for name in ("lookahead", "virtual_step", "meta_every", "meta_loss")
        if getattr(config, name) != known[name].default
    ]
    if asked:
        warnings.warn(
            f"{', '.join(asked)}: does nothing here, because method '{config.method}' does not look ahead", stacklevel=4
        )
