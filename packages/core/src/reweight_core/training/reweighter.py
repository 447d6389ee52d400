"""Learned weights in a loop of the user's own: a loss, whose gradient with respect to the logits is D'."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reweight_core.config.compatibility import refuse_misfits
from reweight_core.config.loop_config import loop_config
from reweight_core.data.given_batches import Expected, GivenExamples, MetaBatches
from reweight_core.data.inputs import Inputs
from reweight_core.data.seeds import derived_seed
from reweight_core.engine.compiled import is_compiled, original
from reweight_core.engine.head import find_head
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.loop_step import LoopStep
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.stage import Stage
from reweight_core.engine.step import Step
from reweight_core.errors import UserError, told_in_python
from reweight_core.plugins import registry
from reweight_core.training.auto import choose_lookahead
from reweight_core.training.context import build_hooks
from reweight_core.training.loop_arguments import (
    check_arguments,
    first_trained,
    hook_in,
    innermost,
    refuse_before_build,
    refuse_change,
    refuse_state,
    refuse_what_only_a_run_has,
    tell_strange_epoch,
)
from reweight_core.training.loop_context import LoopContexts
from reweight_core.training.metrics import means
from reweight_core.training.networks import seeded
from reweight_core.training.preflight import rehearse_meta_batch, rehearsed_lookahead


class Reweighter:
    """A method, and components, in a loop of the user's own.

        for inputs, labels, ids in loader:
            loss = reweighter(inputs, labels, ids)
            loss.backward(); optimizer.step(); optimizer.zero_grad()

    Backward, scaling, accumulation, clipping and the optimizer stay the loop's; only the network's random draws
    (dropout) are the reweighter's, so that its passes can be compared.

    Args:
        method: name of a method, as for ``--method``.
        model: the network, on its device; it takes a batch's inputs and returns logits (n, C).
        optimizer: the loop's own, which holds every trainable parameter. The look-ahead takes its learning rates, of
            each group its own; what plugins know as the learning rate is the largest of them.
        num_classes: number of classes C.
        train_size: number of training examples N; `ids` are their positions, 0..N-1.
        meta: clean examples: a loader of ``(inputs, labels)`` or of mappings with ``labels``, repeated endlessly; a
            dataset of such examples; or ``(inputs, labels)`` as tensors. None for a method that needs none.
        labels: the observed training labels (N,), for plugins that count classes or learn labels.
        dataset: the training set, ``dataset[id]`` an ``(input, label)``, for plugins that look at it between steps.
        epochs: how many epochs the loop takes, for plugins that go by them.
        steps: how many steps it takes: in a short training a weighting network learns faster.
        loss: name of a loss, as for ``--loss``; looking ahead included.
        components: names of components, as for ``--with``.
        new_model: returns a further network, for methods that train a second one.
        seed: seed of all that is random in it.
        options: options of the method by name (underscores), of loss and components with their names before them,
            ``gce_q=0.5``, and core's of the look-ahead (`config.loop_config`).

    Raises:
        UserError: if something does not fit, or the method needs what only a run has: stages or an order of its own.
    """

    @told_in_python()
    def __init__(
        self,
        method: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        num_classes: int,
        train_size: int,
        meta: Any = None,
        labels: Any = None,
        dataset: Any = None,
        epochs: int | None = None,
        steps: int | None = None,
        loss: str = "cross-entropy",
        components: tuple[str, ...] | list[str] = (),
        new_model: Callable[[], nn.Module] | None = None,
        seed: int = 0,
        **options: Any,
    ):
        check_arguments(method, loss, model, components, new_model, num_classes, train_size, epochs, steps)
        self._config = config = loop_config(method, loss, tuple(components), seed, options)
        self._record = record = registry.find("method", method)
        records = {name: registry.find("component", name) for name in config.with_}
        refuse_before_build(config)
        needing = [f"method '{method}'"] * record.needs_meta_set
        needing += [f"component '{name}'" for name, component in records.items() if component.needs_meta_set]
        if needing and meta is None:
            raise UserError(f"{needing[0]} needs clean examples: give meta=, or choose a method that needs none")
        refuse_misfits(config, record, registry.find("loss", loss), records, has_meta_set=True)
        self._wrapper = model if isinstance(model, DistributedDataParallel) else None
        self._compiled = is_compiled(model)
        self._model = model = original(model)
        parameter = first_trained(model)
        optimizer = innermost(optimizer)
        self._optimizer, device = optimizer, parameter.device
        self._expected = Expected(num_classes, train_size, device)
        lr = torch.full((), float(optimizer.param_groups[0]["lr"]), device=device)
        train = None
        if labels is not None or dataset is not None:
            train = cache(lambda: GivenExamples(self._expected, dataset, labels))
        contexts = LoopContexts(config, model, optimizer, lr, num_classes, train_size, train, epochs, steps, new_model)
        with seeded(seed, device):
            self._hooks = hooks = build_hooks(config, contexts)
        contexts.close()
        self._stage = Stage("train", epochs or 1, float(lr))
        refuse_what_only_a_run_has(hooks, self._stage)
        generator = torch.Generator().manual_seed(derived_seed(seed, "meta"))
        of_meta = attrs.evolve(self._expected, size=None, source="meta")
        self._meta = None if meta is None else MetaBatches(meta, of_meta, config.meta_batch_size, generator)
        # a method may have a source of its own
        source: Any = hooks.provide_meta_set(self._meta)  # type: ignore[arg-type]  # a source, which plugins pass on
        if source is None and record.looks_ahead != "no":
            raise UserError(f"method '{method}' looks ahead at clean examples, and there are none: give meta=")
        self._step = LoopStep(
            model,
            hooks,
            optimizer,
            source,
            train_size,
            num_classes,
            lr,
            torch.Generator(device).manual_seed(derived_seed(seed, "network")),
            config.virtual_step,
            config.memory == "lean",
            hooks.losses if config.meta_loss == "training" else cross_entropy,
        )
        hooks.check_state()
        self._steps, self._epochs, self._rehearsed, self._begun, self._chosen = 0, 0, False, False, False
        self._weighed: Step | None = None
        self._batches: list[int] = []
        before = (lambda *_: self._manipulate()) if hooks.implementers("manipulate_update") else None
        follows = bool(hooks.implementers("follow_update"))
        after = (lambda *_: hooks.follow_update(self._step.passes.parameters)) if follows else None
        hook_in(optimizer, before, after)

    @told_in_python()
    def __call__(self, inputs: Inputs, labels: Any, ids: Any) -> Tensor:
        """Run the network on a batch, look ahead and weigh it; return its loss, a scalar.

        The value is the mean of the weighted losses, and its gradient with respect to the logits D'.

        Args:
            inputs: what the network takes: a tensor; a tuple, for positional arguments; or a mapping, for keywords.
            labels: observed labels, whole numbers (n,).
            ids: positions in the training set, whole numbers (n,).

        Raises:
            UserError: if the batch cannot be, or, at the first one, if the network cannot be trained.
        """
        if not torch.is_grad_enabled():
            raise UserError("the reweighter is called where gradients are off (torch.no_grad): it is for training only")
        if next(iter(self._step.passes.parameters.values())).device != self._expected.device:
            raise UserError("the model was moved to another device: make the Reweighter after model.to(device)")
        refuse_change(self._model, self._step.passes.parameters)
        batch = self._expected.numbered(inputs, labels, ids)
        if self._meta is not None:
            self._meta.next()
        self._step.feed(batch)
        # the passes compute in the loop's number type, and all else in its own
        device, n = self._expected.device.type, len(batch.ids)
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        for passes in (self._step.passes, *(network.passes for network in self._hooks.networks.values())):
            passes.autocast = autocast
        with torch.autocast(device, enabled=False):
            with self._step.own_gradients():
                self._begin(batch.inputs, n)
                looks_ahead = self._steps % self._config.meta_every == 0
                self._step.passes.wrapper = self._wrapper
                step = self._step.open(n, self._stage, looks_ahead, self._epochs)
                own = self._step.weigh(step)
            self._step.note(step, own)
            assert step.weights is not None and step.D_prime is not None, "the step was weighed"
            weights = step.weights if step.weights.dim() == 1 else step.weights.mean(1)
            value, logits = (weights * step.losses).mean(), self._step.passes.hand_over()
            loss = value + ((logits - logits.detach()) * step.D_prime).sum()
        self._steps += 1
        self._batches.append(n)
        self._step.passes.wrapper = None
        # they know each other: apart, all their tensors are freed now and not some time later
        step.look = None
        if self._hooks.implementers("manipulate_update"):
            if self._weighed is not None:
                raise UserError(
                    f"{self._hooks.implementers('manipulate_update')} changes the gradients of one batch, and those of "
                    "several are accumulated: step the optimizer after each"
                )
            self._weighed = step
        return loss

    def step(self, inputs: Inputs, labels: Any, ids: Any) -> Tensor:
        """Take a whole step: the loss of a batch (arguments as a call), backward, the optimizer; return the loss."""
        self._optimizer.zero_grad()
        loss = self(inputs, labels, ids)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def samples(self) -> dict[str, Tensor]:
        """Return what is known of each training example, as ``samples.safetensors`` of a run has it: (N,) each, copies.

        ``visits``; what was last seen of it: ``last_weight``, ``loss``, ``probability`` of its label, ``margin``,
        ``predicted``; and the means over its visits: ``mean_weight``, ``mean_loss``, ``mean_margin``.
        """
        table = self._step.samples
        seen = {name: tensor for name, tensor in table.tensors.items() if not name.endswith("_sum")}
        averaged = {f"mean_{name}": table.mean(name) for name in ("weight", "loss", "margin")}
        return {name: tensor.to("cpu", copy=True) for name, tensor in (seen | averaged).items()}

    @told_in_python()
    def epoch_ended(self) -> dict[str, Any]:
        """Do an epoch's last work; return its figures, named as in ``metrics.jsonl``.

        Methods that choose examples or have a schedule need it after every epoch.

        Raises:
            UserError: if a loss, weight or gradient was not finite.
        """
        tell_strange_epoch(self._batches, self._step.samples.tensors["visits"])
        self._batches = []
        figures: dict[str, Any] = means(self._step.sums)
        self._epochs += 1
        figures |= self._hooks.finish_epoch(self._epochs, self._step.samples.tensors, figures)
        self._step.sums.reset()
        self._chosen = False
        self._step.health.check(self._hooks.implementers)
        return figures

    def evaluation_model(self) -> nn.Module:
        """Return the network to evaluate and keep: the model as written, or what a component makes of it (``ema``)."""
        return self._hooks.evaluation_model(self._model)

    def state_dict(self) -> dict[str, Any]:
        """Return all that it carries from step to step, network and optimizer aside; `torch.save` takes it.

        Where a loader of meta batches is, is not in it.
        """
        meta = {} if self._meta is None else self._meta.state_dict()
        return {
            "made_for": self._made_for,
            "plugins": dict(self._hooks.state_dict()),
            "samples": dict(self._step.samples.tensors),
            "sums": attrs.asdict(self._step.sums),
            "generators": {name: generator.get_state() for name, generator in self._step.generators.items()},
            "meta": meta,
            "lookahead": attrs.asdict(self._step.lookahead) if self._config.lookahead == "auto" else {},
            "head": self._step.passes.head,
            "counts": {"steps": self._steps, "epochs": self._epochs, "begun": self._begun, "chosen": self._chosen},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, in place.

        Raises:
            UserError: if it is of another method, loss or training set, or other components; nothing is restored then.
        """
        refuse_state(state.get("made_for"), self._made_for)
        self._hooks.load_state_dict(state["plugins"])
        for name, tensor in self._step.samples.tensors.items():
            tensor.copy_(state["samples"][name])
        for name, value in state["sums"].items():
            getattr(self._step.sums, name).copy_(value)
        for name, generator in self._step.generators.items():
            generator.set_state(state["generators"][name].cpu())
        if self._meta is not None:
            self._meta.load_state_dict(state["meta"])
        counts = state["counts"]
        # a look-ahead that one of the two was told is found out anew
        if state["lookahead"] and self._config.lookahead == "auto":
            self._step.lookahead, self._step.passes.head = Choice(**state["lookahead"]), state["head"]
            self._rehearsed, self._chosen = counts["begun"], counts["chosen"]
        self._steps, self._epochs = counts["steps"], counts["epochs"]
        self._begun = counts["begun"]

    @property
    def _made_for(self) -> dict[str, Any]:
        config = self._config
        names = {"method": config.method, "loss": config.loss, "components": list(config.with_)}
        return names | {"train_size": self._expected.size, "num_classes": self._expected.num_classes}

    def _begin(self, inputs: Inputs, n: int) -> None:
        """Before the first step try the network out; before the first of an epoch choose the look-ahead."""
        step, config, model, looks_ahead = self._step, self._config, self._model, self._record.looks_ahead
        if not self._rehearsed:
            if step.passes.autocast == torch.float16 and looks_ahead != "no":
                raise UserError(
                    "the look-ahead's gradients vanish in float16, which they are not scaled for: autocast to bfloat16"
                )
            if self._compiled:
                warnings.warn("the model is compiled; the reweighter runs it as it was written", stacklevel=4)
            if "head" in (looks_ahead, config.lookahead):
                step.passes.head = find_head(model, inputs)
            step.lookahead = rehearsed_lookahead(
                model,
                inputs,
                self._expected.num_classes,
                step.passes.head,
                looks_ahead,
                config.lookahead,
                step.passes.autocast,
                "repeated" if self._hooks.implementers("manipulate_update") else "free",
            )
            clean = None if self._meta is None or looks_ahead == "no" else self._meta.example_batch()
            if clean is not None:
                rehearse_meta_batch(model, clean.inputs, step.passes.autocast)
            self._rehearsed = True
        if not self._begun:
            self._hooks.begin_stage(self._stage)
            self._begun = True
        if not self._chosen and config.lookahead == "auto" and step.lookahead.name in ("jvp", "fd"):
            step.lookahead = choose_lookahead(step, n, self._stage, self._epochs)
        if not self._chosen and not model.training:
            warnings.warn("the model is in eval mode: call model.train() before an epoch", stacklevel=4)
        self._chosen = True

    def _manipulate(self) -> None:
        """Give the optimizer what the plugins make of the loop's gradients."""
        if self._weighed is None:
            raise UserError(
                f"{self._hooks.implementers('manipulate_update')} changes the gradients, but the optimizer computes "
                "them in its step (a closure), or steps without the reweighter: call backward before optimizer.step()"
            )
        step, self._weighed = self._weighed, None
        self._step.manipulate(step)
