"""The step in a loop of the user's own: weights and D' of the batch that the loop gives, for its own optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from reweight_core.data.batch import Batch, BatchSource
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.losses import cross_entropy
from reweight_core.engine.optimizers import virtual_step_of
from reweight_core.engine.passes import Passes
from reweight_core.engine.sample_table import SampleTable
from reweight_core.engine.stage import Stage
from reweight_core.engine.step import Losses
from reweight_core.engine.virtual_step import VirtualGroups, VirtualSGD, VirtualStep
from reweight_core.engine.weighing import StepHooks, Weighing
from reweight_core.errors import UserError


class LoopStep(Weighing):
    """What `Weighing` finds of the batches that a loop feeds it.

    Args:
        model: the network, on its device.
        hooks: the method.
        optimizer: the loop's own; its learning rates are read at every step.
        meta: what meta batches come from, or None.
        train_size: number of training examples N.
        num_classes: number of classes C.
        lr: tensor of the learning rate, without dimensions: the largest one of the optimizer's groups.
        generator: source of dropout masks and the like.
        virtual_step: ``plain``, ``optimizer`` or ``off``.
        lean: whether to run the training forward again rather than keep its graph during the look-ahead.
        meta_losses: the loss of a meta batch.

    Raises:
        UserError: if the optimizer lacks a parameter that is trained, or its step is asked for and is not known.
    """

    def __init__(
        self,
        model: nn.Module,
        hooks: StepHooks,
        optimizer: torch.optim.Optimizer,
        meta: BatchSource | None,
        train_size: int,
        num_classes: int,
        lr: Tensor,
        generator: torch.Generator,
        virtual_step: str = "plain",
        lean: bool = False,
        meta_losses: Losses = cross_entropy,
    ):
        super().__init__(
            model,
            hooks,
            Choice("none"),
            Passes(model, generator, lean=lean),
            {"network": generator},
            lr,
            SampleTable(train_size, lr.device),
            num_classes,
            meta_losses,
        )
        self._optimizer, self._virtual, self._meta = optimizer, virtual_step, meta
        self._batch: Batch | None = None
        held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        lacking = [name for name, parameter in self.passes.parameters.items() if parameter not in held]
        if lacking:
            raise UserError(
                f"the optimizer lacks {len(lacking)} of the model's trainable parameters ({lacking[0]}): give it all, "
                "or freeze them (requires_grad_(False))"
            )
        self._virtual_step()

    def feed(self, batch: Batch) -> None:
        """Say what the next step takes, and read the rates of the optimizer."""
        self._batch = batch
        rates = [torch.as_tensor(group["lr"]).to(self.lr) for group in self._optimizer.param_groups]
        self.lr.copy_(torch.stack(rates).amax())

    @contextmanager
    def own_gradients(self) -> Iterator[None]:
        """Keep the loop's gradients: differentiating a look-ahead may leave others behind."""
        parameters = self.passes.parameters.values()
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient

    def _given(self, size: int, stage: Stage) -> tuple[Batch, Callable[[], Batch]]:
        assert self._batch is not None, "a batch is fed before the step is opened"
        return self._batch, self._meta_batch

    def _meta_batch(self) -> Batch:
        if self._meta is None:
            raise UserError("the method asks for clean examples, and there are none: give meta=")
        return attrs.evolve(self._meta.draw_batch(), source="meta")

    def _virtual_step(self) -> VirtualStep | None:
        groups = self._optimizer.param_groups
        if self._virtual == "off":
            return None
        # made anew each time, because an optimizer that loads its state has another dictionary of it
        if len(groups) == 1 or (self._virtual == "plain" and _one_rate(groups)):
            return self._rule_of(groups[0], self.lr)
        # a rate of 0 as their largest is that of all
        share = {id(g): torch.where(self.lr == 0, 1, torch.as_tensor(g["lr"]).to(self.lr) / self.lr) for g in groups}
        rules = {id(group): self._rule_of(group, share[id(group)]) for group in groups}
        return VirtualGroups(self.lr, {p: rules[id(group)] for group in groups for p in group["params"]})

    def _rule_of(self, group: Mapping[str, Any], rate: Tensor) -> VirtualStep:
        return VirtualSGD(rate) if self._virtual == "plain" else virtual_step_of(self._optimizer, group, rate)

    @property
    def _optimizer_state(self) -> Mapping[Tensor, Mapping[str, Any]]:
        return self._optimizer.state


def _one_rate(groups: list[dict[str, Any]]) -> bool:
    # comparing tensors would wait for the device
    return all(not isinstance(group["lr"], Tensor) and group["lr"] == groups[0]["lr"] for group in groups)
