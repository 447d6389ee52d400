"""The parts of a run, built from its options and its data, and checked before anything is written."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from reweight_core.config.compatibility import refuse_misfits
from reweight_core.config.run_config import RunConfig
from reweight_core.data.batch import BatchSource
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder, batch_sizes
from reweight_core.data.prepare import PreparedData
from reweight_core.data.seeds import derived_seed
from reweight_core.engine.cuda_graphs import CudaGraphs, RecordedSteps
from reweight_core.engine.head import find_head
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.stage import Stage
from reweight_core.engine.training_step import TrainingStep
from reweight_core.errors import UserError
from reweight_core.machine.device import keep_freed_memory, memory_format, resolve_device, usable_cpus
from reweight_core.models.build import build_model
from reweight_core.models.initial import initialise, pretrained_weights, read_weights
from reweight_core.plugins import registry
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.records import ComponentPlugin, Context, LossPlugin, MethodPlugin
from reweight_core.training.preflight import rehearsed_lookahead
from reweight_core.training.schedules import Schedule, schedule


@attrs.frozen(eq=False)
class Parts:
    """What a run trains with.

    Attributes:
        config: the options.
        data: the prepared data.
        device: where everything lies.
        model: the network.
        hooks: the method, the components and the observers.
        train: training examples.
        meta: what meta batches come from, or None.
        feeder: gives the batches of every epoch.
        step: the training step.
        runner: what runs the step: itself, or recordings of it.
        stages: the stages of the run.
        schedules: the factor of the learning rate in each stage.
        batch_sizes: the sizes of an epoch's batches.
        total: steps of the whole run.
    """

    config: RunConfig
    data: PreparedData
    device: torch.device
    model: nn.Module
    hooks: MethodHooks
    train: Examples
    meta: Examples | BatchSource | None
    feeder: Feeder
    step: TrainingStep
    runner: TrainingStep | RecordedSteps
    stages: Sequence[Stage]
    schedules: Sequence[Schedule]
    batch_sizes: Sequence[int]
    total: int


def build_parts(config: RunConfig, data: PreparedData, observers: Sequence[object] = ()) -> Parts:
    """Build what a run trains with.

    Args:
        config: the options.
        data: the prepared data.
        observers: objects with `observe_step` or `observe_epoch` hooks.

    Raises:
        UserError: if the parts do not fit together, or the network cannot be trained.
    """
    device = resolve_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    method = registry.find("method", config.method)
    components = {name: registry.find("component", name) for name in config.with_}
    loss = registry.find("loss", config.loss)
    refuse_misfits(config, method, loss, components, has_meta_set=data.meta is not None)
    with _seeded(config.seed, device):
        model = build_network(config, data, device)
        train = _examples(config, data.dataset, data.train, device)
        held_out = _examples(config, data.dataset, data.meta, device) if data.meta else None
        sizes = batch_sizes(len(train), config.batch_size)
        stage = Stage("train", math.ceil(config.steps / len(sizes)) if config.steps else config.epochs, config.lr)
        context = Context(
            num_classes=len(data.dataset.classes),
            train_size=len(data.train),
            seed=derived_seed(config.seed, config.method),
            weight_decay=config.weight_decay,
            device=device,
            dtype=next(model.parameters()).dtype,
            model=model,
            train=train,
            meta=held_out,
            batch_size=config.batch_size,
            lr=torch.zeros((), device=device),
            epochs=stage.epochs,
            steps=config.steps or stage.epochs * len(sizes),
        )
        hooks = _build_hooks(config, method, loss, components, context, observers)
    meta = hooks.provide_meta_set(held_out)
    if meta is None and method.looks_ahead != "no":
        raise UserError(
            f"method '{config.method}' looks ahead at clean examples, and there are none: give --meta-size N"
        )
    workers = usable_cpus() if config.workers is None else config.workers
    images = train.batch(torch.arange(2, device=device), None).inputs
    head = find_head(model, images)
    lookahead = rehearsed_lookahead(
        model, images, len(data.dataset.classes), head, method.looks_ahead, config.lookahead
    )
    step = _build_step(config, model, hooks, train, meta, head, lookahead, context.lr)
    stages = hooks.plan_stages(stage)
    _refuse_stages(config, components, stages)
    steps_of_stages = sum(stage.epochs for stage in stages) * len(sizes)
    return Parts(
        config=config,
        data=data,
        device=device,
        model=model,
        hooks=hooks,
        train=train,
        meta=meta,
        feeder=Feeder(train, meta, config.meta_batch_size, config.seed, workers),
        step=step,
        runner=_recorded(config, step, device),
        stages=stages,
        schedules=[schedule(config.schedule, s.epochs, config.lr_drops, config.lr_drop_factor) for s in stages],
        batch_sizes=sizes,
        total=min(steps_of_stages, config.steps or steps_of_stages),
    )


def begin(parts: Parts, source: str = "train") -> int:
    """Put the network into train mode and feed the first batch, at the first rate; return the batch's size.

    Args:
        parts: what a run trains with.
        source: ``train`` or ``meta``, what the batch is taken from.
    """
    parts.model.train()
    parts.step.lr.fill_(parts.stages[0].lr)
    parts.step.feed(next(parts.feeder.epoch(0, source, parts.batch_sizes[:1])))
    return parts.batch_sizes[0]


def refuse_gpu_options(config: RunConfig) -> None:
    """Refuse what only a GPU can do where there is none."""
    if resolve_device(config.device).type == "cuda":
        return
    if config.graph == "on":
        raise UserError("--graph on: steps are recorded on a CUDA GPU only; use --graph auto or off")
    if config.precision == "tf32":
        raise UserError("--precision tf32: only CUDA GPUs have it; use --precision auto or fp32")


def build_network(config: RunConfig, data: PreparedData, device: torch.device) -> nn.Module:
    """Build the network of a run, with the initial weights that are asked for, on its device."""
    dataset = data.dataset
    model = build_model(config.model, dataset.input_shape, len(dataset.classes))
    is_image = data.train.images.dtype == np.uint8
    if not is_image and any(isinstance(module, nn.Conv2d) for module in model.modules()):
        raise UserError(f"--model {config.model}: is for images, but the data are features; give --model mlp")
    _initialise(model, config, dataset)
    return model.to(device).to(memory_format=memory_format(config.channels_last))


def _initialise(model: nn.Module, config: RunConfig, dataset: Dataset) -> None:
    if config.init_from is not None and config.pretrained:
        raise UserError("--init-from and --pretrained exclude each other; give --no-pretrained with --init-from")
    if config.init_from is not None:
        weights, source = read_weights(config.init_from), f"--init-from {config.init_from}"
    elif config.pretrained:
        weights, source = pretrained_weights(config.model), "--pretrained"
    else:
        return
    head = find_head(model, torch.zeros(2, *dataset.input_shape))
    if not initialise(model, weights, head, source):
        warnings.warn(f"{source}: the last layer is for other classes and begins untrained", stacklevel=2)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a stream of the run inside the block, and leave the process's own as it is."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _examples(config: RunConfig, dataset: Dataset, split: Split, device: torch.device) -> Examples:
    return Examples(
        split, dataset, device, torch.get_default_dtype(), config.augment, memory_format(config.channels_last)
    )


def _build_hooks(
    config: RunConfig,
    method: MethodPlugin,
    loss: LossPlugin,
    components: Mapping[str, ComponentPlugin],
    context: Context,
    observers: Sequence[object],
) -> MethodHooks:
    built: dict[str, Any] = {
        name: record.build(options, attrs.evolve(context, seed=derived_seed(config.seed, name)))
        for (name, record), options in zip(components.items(), config.component_options, strict=True)
    }
    built_loss = loss.build(config.loss_options, attrs.evolve(context, seed=derived_seed(config.seed, config.loss)))
    return MethodHooks(
        method.build(config.method_options, context), config.method, observers, built, (config.loss, built_loss)
    )


def _build_step(
    config: RunConfig,
    model: nn.Module,
    hooks: MethodHooks,
    train: Examples,
    meta: Examples | BatchSource | None,
    head: str | None,
    lookahead: Choice,
    lr: Tensor,
) -> TrainingStep:
    return TrainingStep(
        model,
        hooks,
        lookahead,
        train,
        meta,
        settings=OptimizerSettings(
            name=config.optimizer,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            virtual_step=config.virtual_step,
            max_grad_norm=config.max_grad_norm,
        ),
        seed=config.seed,
        autocast=torch.bfloat16 if config.precision == "bf16" else None,
        head=head,
        lean=config.memory == "lean",
        meta_losses=hooks.losses if config.meta_loss == "training" else cross_entropy,
        lr=lr,
    )


def _recorded(config: RunConfig, step: TrainingStep, device: torch.device) -> TrainingStep | RecordedSteps:
    if device.type != "cuda" or config.graph == "off":
        return step
    graphs = CudaGraphs(device, step.generators.values())
    return RecordedSteps(step, graphs, required=config.graph == "on")


def _refuse_stages(config: RunConfig, components: Mapping[str, ComponentPlugin], stages: Sequence[Stage]) -> None:
    for name, component in components.items():
        if component.per_example and any(stage.source == "meta" for stage in stages):
            raise UserError(
                f"--with {name}: it keeps what it learns by training example, but method '{config.method}' "
                "trains on the meta set"
            )
