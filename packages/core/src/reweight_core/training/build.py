"""The parts of a run, built from its options and its data, and checked before anything is written."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from reweight_core.config.compatibility import GIVE_CLEAN, records_of, refuse_misfits
from reweight_core.config.run_config import RunConfig
from reweight_core.data.batch import BatchSource
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder, batch_sizes
from reweight_core.data.given_weights import read_weights
from reweight_core.data.prepare import PreparedData
from reweight_core.engine.cuda_graphs import CudaGraphs, RecordedSteps
from reweight_core.engine.head import find_head
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.passes import Passes
from reweight_core.engine.stage import Stage
from reweight_core.engine.training_step import TrainingStep
from reweight_core.errors import UserError
from reweight_core.machine.device import (
    cpus_of_this_process,
    keep_freed_memory,
    memory_format,
    resolve_device,
    total_memory,
)
from reweight_core.machine.together import ALONE, Together
from reweight_core.plugins import registry
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.training.best import BestNetwork
from reweight_core.training.context import Contexts, autocast_of, build_hooks, settings_of
from reweight_core.training.networks import build_network, seeded
from reweight_core.training.preflight import rehearse_shares, rehearsed_lookahead
from reweight_core.training.schedules import Schedule, schedules
from reweight_core.training.stages import (
    check_sharing,
    epoch_length,
    length_in_epochs,
    refuse_stages,
    source_size,
    usual_order,
    usual_sizes,
)
from reweight_core.training.training_set import training_set


@attrs.frozen(eq=False)
class Parts:
    """What a run trains with.

    Attributes:
        config: the options.
        data: the prepared data, with the trusted examples that are trained on too.
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
        batch_sizes: the sizes of an epoch's batches in each stage, in the default order.
        initial: weights and buffers that the run begins with, if a later stage begins with them again, or None.
        best: the network as it was best on the validation set.
        together: the processes of the run.
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
    batch_sizes: Sequence[Sequence[int]]
    initial: Mapping[str, Tensor] | None
    best: BestNetwork
    together: Together

    def expected_steps(self, stage: int) -> int:
        """Return how many steps a stage has, in the default order."""
        steps = self.stages[stage].steps
        return self.stages[stage].epochs * len(self.batch_sizes[stage]) if steps is None else steps

    def bring_together(self) -> None:
        """With several processes: make what each knows of an epoch what all know."""
        networks = [network.model for network in self.hooks.networks.values()]
        self.step.finish_epoch(networks, self.hooks.by_example)

    @property
    def passes(self) -> list[Passes]:
        """The passes of every network: the run's, and the further ones of plugins."""
        return [self.step.passes, *(network.passes for network in self.hooks.networks.values())]


def build_observers(config: RunConfig, restored: bool = False) -> dict[str, object]:
    """Build the observers that ``--observe`` names, by name; a library may be missing, so before the data are read.

    Args:
        config: the options.
        restored: whether the run goes on from a checkpoint; it then does so without those that cannot be built here.

    Raises:
        UserError: if one cannot be built.
    """
    built = {}
    for name, options in zip(config.observe, config.observer_options, strict=True):
        try:
            built[name] = registry.build("observer", name, options)
        except UserError as error:
            if not restored:
                raise
            warnings.warn(f"{error}; the run goes on without observer '{name}'", stacklevel=3)
    return built


def build_parts(
    config: RunConfig,
    data: PreparedData,
    observers: Sequence[object] = (),
    restored: bool = False,
    listeners: Mapping[str, object] | None = None,
    together: Together = ALONE,
) -> Parts:
    """Build what a run trains with.

    Args:
        config: the options.
        data: the prepared data.
        observers: further objects with hooks of an observer.
        restored: whether all weights come from a checkpoint afterwards.
        listeners: what `build_observers` returned.
        together: the processes of the run.

    Raises:
        UserError: if the parts do not fit together, or the network cannot be trained.
    """
    device = resolve_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    method, loss, components = records_of(config)
    if config.processes != together.size:
        raise UserError(f"--processes {config.processes}: only reweight train and resume take several")
    refuse_misfits(config, method, loss, components, has_meta_set=data.meta is not None)
    data = training_set(config, data)
    _refuse_huge_batches(config, data)
    # the weights of a run that is restored come from its checkpoint
    architecture = attrs.evolve(config, init_from=None, pretrained=False) if restored else config
    with seeded(config.seed, device):
        model = build_network(architecture, data, device)
        train = _examples(config, data.dataset, data.train, device)
        held_out = _examples(config, data.dataset, data.meta, device) if data.meta else None
        for name, examples in (("training", train), ("meta", held_out)):
            if examples is not None and len(examples) < 2 * together.size > 2:
                raise UserError(
                    f"--processes {together.size}: each needs two examples of every batch, and the {name} set has "
                    f"{len(examples)} in all; give fewer"
                )
        sizes = batch_sizes(len(train), config.batch_size, together.size)
        epochs = math.ceil(config.steps / len(sizes)) if config.steps else config.epochs
        stage = Stage("train", epochs, config.lr, steps=config.steps)
        best = BestNetwork(model, config.best_by)
        steps = config.steps or stage.epochs * len(sizes)
        contexts = Contexts(architecture, data, model, train, held_out, stage.epochs, steps, best.copy, together)
        hooks = build_hooks(config, contexts, observers, listeners)
        contexts.close()
        if not (restored or config.init_from or config.pretrained):
            hooks.initialise_networks(model)
    meta = hooks.provide_meta_set(held_out)
    if meta is None and method.looks_ahead != "no":
        raise UserError(f"method '{config.method}' looks ahead at clean examples, and there are none: {GIVE_CLEAN}")
    workers = cpus_of_this_process() if config.workers is None else config.workers
    images = train.batch(torch.arange(2, device=device), None).inputs
    head = find_head(model, images)
    lookahead = rehearsed_lookahead(
        model,
        images,
        len(data.dataset.classes),
        head,
        method.looks_ahead,
        config.lookahead,
        draws="repeated" if hooks.implementers("manipulate_update") else "kept",
    )
    if together.size > 1:
        rehearse_shares(model, images, train.batch(torch.arange(3, device=device), None).inputs)
    stages = hooks.plan_stages(stage)
    per_example = [f"--with {name}" for name, component in components.items() if component.per_example]
    per_example += [f"--loss {config.loss}"] * loss.per_example
    refuse_stages(hooks, per_example, stages, train, meta, data.val is not None, config.meta_use)
    of_stages = [
        usual_sizes(stage, source_size(stage, train, meta), config.batch_size, together.size) for stage in stages
    ]
    if together.size > 1:
        lengths = [epoch_length(stage, source_size(stage, train, meta)) for stage in stages]
        check_sharing(stages, lengths, of_stages, together.size)
    both = None
    if any(stage.source == "both" for stage in stages):
        assert isinstance(meta, Examples), "a stage on what there is not is refused"
        both = train.followed_by(meta)
    trusted = None if data.trusted is None else torch.from_numpy(data.trusted).to(device)
    factors = None if config.weights is None else _factors(config.weights, data, restored).to(device)
    step = _build_step(
        config, model, hooks, train, meta, both, trusted, factors, head, lookahead, contexts.lr, together
    )
    begins_again = any(stage.start == "initial" for stage in stages[1:])
    # last, because some of a plugin's state may follow from the meta set and from the stages
    hooks.check_state()
    return Parts(
        config=config,
        data=data,
        device=device,
        model=model,
        hooks=hooks,
        train=train,
        meta=meta,
        feeder=Feeder(train, meta, config.meta_batch_size, config.seed, workers, both, together),
        step=step,
        runner=_recorded(config, step, device),
        stages=stages,
        schedules=schedules(
            config,
            stages,
            [length_in_epochs(s, len(sizes)) for s, sizes in zip(stages, of_stages, strict=True)],
            hooks.implementers("plan_stages"),
        ),
        batch_sizes=of_stages,
        initial={name: tensor.clone() for name, tensor in model.state_dict().items()} if begins_again else None,
        best=best,
        together=together,
    )


def _factors(file: Path, data: PreparedData, restored: bool) -> Tensor:
    """Return the user's weights of the training examples; those of a run that is restored come from its checkpoint."""
    return torch.ones(len(data.train)) if restored else torch.from_numpy(read_weights(file, data))


def begin(parts: Parts) -> int:
    """Begin the first stage and feed a batch of it, at the stage's rate; return the batch's size.

    No plugin is asked for the epoch's order yet.
    """
    stage, size = parts.stages[0], parts.batch_sizes[0][0]
    parts.model.train()
    parts.hooks.begin_stage(stage)
    parts.step.lr.fill_(stage.lr)
    order = usual_order(stage, parts.config.seed, 0)
    parts.step.feed(next(parts.feeder.epoch(0, stage.source, [size], order)))
    return size


def refuse_gpu_options(config: RunConfig) -> None:
    """Refuse what only a GPU can do where there is none."""
    if resolve_device(config.device).type == "cuda":
        return
    if config.graph == "on":
        raise UserError("--graph on: steps are recorded on a CUDA GPU only; use --graph auto or off")
    if config.precision == "tf32":
        raise UserError("--precision tf32: only CUDA GPUs have it; use --precision auto or fp32")


def _examples(config: RunConfig, dataset: Dataset, split: Split, device: torch.device) -> Examples:
    return Examples(
        split, dataset, device, torch.get_default_dtype(), config.augment, memory_format(config.channels_last)
    )


def _build_step(
    config: RunConfig,
    model: nn.Module,
    hooks: MethodHooks,
    train: Examples,
    meta: Examples | BatchSource | None,
    both: Examples | None,
    trusted: Tensor | None,
    factors: Tensor | None,
    head: str | None,
    lookahead: Choice,
    lr: Tensor,
    together: Together,
) -> TrainingStep:
    return TrainingStep(
        model,
        hooks,
        lookahead,
        train,
        meta,
        settings=settings_of(config),
        seed=config.seed,
        autocast=autocast_of(config),
        head=head,
        lean=config.memory == "lean",
        both=both,
        trusted=trusted,
        factors=factors,
        meta_losses=hooks.losses if config.meta_loss == "training" else cross_entropy,
        lr=lr,
        together=together,
        skips=config.on_nonfinite == "skip",
    )


def _refuse_huge_batches(config: RunConfig, data: PreparedData) -> None:
    """Raise `UserError` if a batch alone would not fit into the machine's memory, before anything is made for it."""
    sizes = {"--batch-size": min(config.batch_size, len(data.train))}
    if data.meta is not None:
        sizes["--meta-batch-size"] = min(config.meta_batch_size, len(data.meta))
    shape, memory = data.dataset.input_shape, total_memory()
    for flag, size in sizes.items():
        needed = size * math.prod(shape) * torch.float32.itemsize
        if needed > memory / 2:
            shown = " x ".join(map(str, shape))
            raise UserError(
                f"{flag} {size}: the inputs of a batch ({shown} numbers each) would take {needed / 2**30:.0f} of "
                f"{memory / 2**30:.0f} GiB of memory; give fewer, or smaller inputs"
            )


def _recorded(config: RunConfig, step: TrainingStep, device: torch.device) -> TrainingStep | RecordedSteps:
    if device.type != "cuda" or config.graph == "off":
        return step
    graphs = CudaGraphs(device, step.generators.values())
    return RecordedSteps(step, graphs, required=config.graph == "on")
