"""One optimisation step as a function of preallocated tensors, so that it can be recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from reweight_core.data.batch import Batch, BatchSource, Source
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Fed
from reweight_core.data.seeds import derived_seed
from reweight_core.engine.gradient_exchange import GradientExchange
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.optimizers import NamedOptimizer, OptimizerSettings
from reweight_core.engine.passes import Passes
from reweight_core.engine.sample_table import SampleTable
from reweight_core.engine.skipping import Skipping
from reweight_core.engine.stage import TRAINING, Stage
from reweight_core.engine.state import part_of, prefixed
from reweight_core.engine.step import Losses
from reweight_core.engine.virtual_step import VirtualStep
from reweight_core.engine.weighing import StepHooks, Weighing
from reweight_core.errors import UserError
from reweight_core.machine.together import ALONE, Share, Together


class TrainingStep(Weighing):
    """The step of a run: `feed` it a batch, then `run` it.

    `run` reads only tensors that keep their addresses and never reads a value back to the host; batches of
    different sizes are different recordings. Learning rate, ids and sums are changed in place between steps.

    Args:
        model: the network, on its device, in train mode.
        hooks: the method.
        lookahead: how the look-ahead is differentiated.
        train: training examples with observed labels.
        meta: what meta batches come from, or None.
        settings: how the network is optimized.
        seed: seed of the draws inside the step (augmentation; dropout).
        autocast: number type that the network computes in, or None for its parameters' own.
        head: path of the network's last linear layer, if a look-ahead needs it.
        lean: whether to run the training forward again rather than keep its graph during the look-ahead.
        both: the training examples and the meta set's behind them, if any stage trains on the two.
        trusted: which training examples are trusted ones, bool (N,): they have weight 1, whatever plugins say; or None.
        factors: weights that the user gave the training examples, (N,), or None.
        meta_losses: the loss of a meta batch.
        lr: the tensor of the learning rate, without dimensions; None for a new one.
        together: the processes of the run. Each is fed its share of every batch.
        skips: whether a step whose quantities are not finite changes nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        hooks: StepHooks,
        lookahead: Choice,
        train: Examples,
        meta: Examples | BatchSource | None,
        *,
        settings: OptimizerSettings,
        seed: int,
        autocast: torch.dtype | None = None,
        head: str | None = None,
        lean: bool = False,
        both: Examples | None = None,
        trusted: Tensor | None = None,
        factors: Tensor | None = None,
        meta_losses: Losses = cross_entropy,
        lr: Tensor | None = None,
        together: Together = ALONE,
        skips: bool = False,
    ):
        device = train.labels.device
        generators = {
            name: torch.Generator(device).manual_seed(derived_seed(seed, name)) for name in ("augmentation", "network")
        }
        super().__init__(
            model,
            hooks,
            lookahead,
            Passes(model, generators["network"], autocast, head, lean, together),
            generators,
            torch.zeros((), device=device) if lr is None else lr,
            SampleTable(len(train), device, 0 if both is None else len(both) - len(train), together),
            train.num_classes,
            meta_losses,
            together,
        )
        self._exchange = GradientExchange(list(self.passes.parameters.values()), together)
        self._optimizer = NamedOptimizer(self.passes.parameters, settings, self.lr)
        self._update = settings.build_virtual_step(self._optimizer.torch_optimizer, self.lr)
        self._sources: dict[Source, Examples | BatchSource | None] = {"train": train, "meta": meta, "both": both}
        self._trusted: dict[Source, Tensor | None] = {"train": trusted}
        if both is not None:
            of_train = torch.zeros(len(train), dtype=torch.bool, device=device) if trusted is None else trusted
            self._trusted["both"] = torch.cat([of_train, of_train.new_ones(len(both) - len(train))])
        self._factors: dict[Source, Tensor | None] = {"train": factors}
        if both is not None and factors is not None:
            self._factors["both"] = torch.cat([factors, factors.new_ones(len(both) - len(train))])
        self._fed: dict[int, Fed] = {}
        self._skipping = Skipping(self._changed_by_step) if skips else None

    def forget_updates(self) -> None:
        """Make the optimizer one that remembers nothing, in place."""
        self._optimizer.load_state_dict({})

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.sums.reset()
        self.samples.begin_epoch()

    def finish_epoch(self, networks: Iterable[nn.Module] = (), by_example: Iterable[Tensor] = ()) -> None:
        """With several processes: make what each knows of the epoch what all know.

        Running statistics become the mean of the processes', which is what they would be had every step taken it.

        Args:
            networks: further networks.
            by_example: tensors of plugins that steps change in the rows of their examples.
        """
        self.sums.merge(self.together)
        self.samples.merge(by_example)
        self.together.average([buffer for network in (self.model, *networks) for buffer in network.buffers()])

    def feed(self, fed: Fed) -> None:
        """Say what the next step takes."""
        held = self._fed.get(fed.n)
        if held is None or held.meta_ids.shape != fed.meta_ids.shape:
            held = self._fed[fed.n] = fed.empty()
        held.copy_(fed)
        if self._skipping is not None:
            self._skipping.look()

    def run(self, size: int, stage: Stage = TRAINING, looks_ahead: bool = True, epoch: int = 0) -> None:
        """Take one step with the batch of `size` examples that was fed last (arguments as `open`)."""
        if self._skipping is not None:
            self._skipping.remember()
        step = self.open(size, stage, looks_ahead, epoch)
        own = self.weigh(step)
        assert step.D_prime is not None, "the step was weighed"
        # only here: differentiating a look-ahead may have left gradients behind
        self._optimizer.zero_grad()
        with self._exchange.during_backward():
            self.passes.backward(step.D_prime)
        self.manipulate(step)
        self._optimizer.step()
        self.hooks.follow_update(self.passes.parameters)
        if self._skipping is None:
            self.note(step, own)
        else:
            finite = self.note(step, own, _norms(self.passes.parameters.values()))
            # whichever process it was
            skipped = step.total((~finite).any().to(torch.float32)) > 0
            self._skipping.take_back(skipped)
            self.sums.skipped_steps.add_(skipped)
        # step and look-ahead know each other: apart, they and all their tensors are freed now and not some time later
        step.look = None

    def _changed_by_step(self) -> dict[str, Tensor]:
        return (
            prefixed("network", self.model.state_dict())
            | prefixed("optimizer", self._optimizer.state_dict())
            | prefixed("samples", self.samples.of_process or self.samples.tensors)
            | prefixed("sums", self.sums.tensors)
            | prefixed("plugin", self.hooks.state_dict())
        )

    def _given(self, size: int, stage: Stage) -> tuple[Batch, Callable[[], Batch]]:
        fed = self._fed[size]
        return (
            self._draw(stage.source, fed.ids, fed.pixels, fed.share),
            lambda: self._draw("meta", fed.meta_ids, fed.meta_pixels, fed.meta_share),
        )

    def _virtual_step(self) -> VirtualStep | None:
        return self._update

    @property
    def _optimizer_state(self) -> Mapping[Tensor, Mapping[str, Any]]:
        return self._optimizer.torch_optimizer.state

    def _draw(self, source: Source, ids: Tensor, pixels: Tensor | None, share: Share | None) -> Batch:
        examples = self._sources[source]
        if examples is None:
            raise UserError(
                "asks for clean examples, and there are none: give --meta-size N (a method that needs them says so in "
                "its record: needs_meta_set=True)"
            )
        if isinstance(examples, Examples):
            batch = examples.batch(ids, self.generators["augmentation"], pixels, share)
        else:
            batch = self._part_of(examples.draw_batch())
        trusted, factors = self._trusted.get(source), self._factors.get(source)
        return attrs.evolve(
            batch,
            source=source,
            trusted=None if trusted is None else trusted.index_select(0, ids),
            factors=None if factors is None else factors.index_select(0, ids),
        )

    def _part_of(self, batch: Batch) -> Batch:
        """Return this process's share of a batch that every process has drawn."""
        share = self.together.share(len(batch.ids))
        if self.together.size == 1:
            return batch
        if share.n < 2 * self.together.size:
            raise UserError(f"a meta batch of {share.n} is too small for {share.size} processes: each needs two")
        assert isinstance(batch.inputs, Tensor), "a run's inputs are tensors"
        parts = {name: share.of(getattr(batch, name)) for name in ("ids", "inputs", "labels")}
        targets = None if batch.targets is None else share.of(batch.targets)
        return attrs.evolve(batch, **parts, targets=targets, share=share)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the step carries from one call to the next, network and plugins aside, as tensors."""
        generators = {name: generator.get_state() for name, generator in self.generators.items()}
        return (
            prefixed("optimizer", self._optimizer.state_dict())
            | prefixed("samples", self.samples.tensors)
            | prefixed("generator", generators)
            | prefixed("sums", self.sums.tensors)
            | prefixed("factors", {name: kept for name, kept in self._factors.items() if kept is not None})
        )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place."""
        self._optimizer.load_state_dict(part_of(state, "optimizer"))
        generators = part_of(state, "generator")
        for owner, tensors in (("samples", self.samples.tensors), ("sums", self.sums.tensors)):
            saved = part_of(state, owner)
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])
        for name, generator in self.generators.items():
            generator.set_state(generators[name])
        # those that the run began with, whatever their file says by now
        given = part_of(state, "factors")
        for source, factors in self._factors.items():
            if factors is not None:
                factors.copy_(given[source])


@torch.no_grad()
def _norms(parameters: Iterable[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(list(parameters)))
