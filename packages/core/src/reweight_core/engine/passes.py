"""The passes of one network within a step: the real one, one at other parameters, and the products with J."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from reweight_core.data.inputs import Inputs, arguments, length_of, logits_of
from reweight_core.engine.compiled import is_compiled, original, uncompiled
from reweight_core.engine.random_tape import RandomTape
from reweight_core.engine.remembered import OtherOperatorsError, Recall, Remembered
from reweight_core.engine.sync_batch_norm import SyncBatchNorm
from reweight_core.engine.tangent_rules import TangentRules
from reweight_core.errors import UserError
from reweight_core.machine.together import ALONE, Share, Together

Direction = Mapping[str, Tensor]
"""A tensor for each parameter, by name."""

Pass = Literal["forward", "forward-at", "features", "backward", "pullback", "pushforward", "tangents", "difference"]
"""Kinds of passes: forwards with a graph, at other parameters, as far as the head; the products D^T J and J v, the
latter by a forward pass with tangents, by tangents alone beside the values of the real pass, or as a difference."""


def ignore_pass(kind: Pass, inputs: int) -> None:
    """Do nothing: what `Passes` calls at a pass while nobody counts."""


class Passes:
    """Runs a network in the ways that a step with a look-ahead needs.

    Only `forward` changes the network's buffers (running BatchNorm statistics), once a step; the other passes work
    on copies. J is the Jacobian of the last forward's logits (n, C) with respect to the parameters: of the whole
    batch, so that the coupling of its examples by BatchNorm is in it.

    Args:
        model: the network; what `torch.compile` or `DistributedDataParallel` made of one is taken as it was before.
        generator: source of dropout masks and the like.
        autocast: number type that the network computes in (``torch.bfloat16``), or None for its parameters' own.
        head: path of the last linear layer, for look-aheads that change it alone (`find_head`).
        lean: whether `pullback` frees the real pass's graph, which `backward` then makes again.
        together: the processes of the run.

    Attributes:
        parameters: the trainable parameters by name.
        dtype: number type of weights and D: the parameters', at least single precision.
        head: as given.
        autocast: as given; may be replaced between steps.
        features: what went into the head in the real pass, detached, (n, d); None before it, or without a head.
        wrapper: what runs the real pass in the network's place (`DistributedDataParallel`), or None.
        on_pass: called at every pass of the whole network with its kind and its number of inputs; for counting them.
    """

    features: Tensor | None = None

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator,
        autocast: torch.dtype | None = None,
        head: str | None = None,
        lean: bool = False,
        together: Together = ALONE,
    ):
        model = original(model)
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._model, self._compiled = model, is_compiled(model)
        self._tape = RandomTape(generator, together)
        self._remembered, self._remembers = Remembered(), False
        self.on_pass: Callable[[Pass, int], object] = ignore_pass
        self.wrapper: nn.Module | None = None
        self.autocast = autocast
        some = next(iter(self.parameters.values()))
        self._device, self.dtype = some.device.type, torch.promote_types(some.dtype, torch.float32)
        self._together = together
        self._inputs: Inputs
        self._shares: Sequence[Share] = ()
        self._buffers: dict[str, Tensor] = {}
        self._logits: Tensor | None = None
        self._has_graph = False
        self._lean = lean
        self.head = head
        self._meta_features: tuple[Inputs, Tensor] | None = None

    @property
    def draws(self) -> list[int]:
        """The first dimension of each random draw of the last real pass, 0 of a single number."""
        return self._tape.lengths

    def begin(self, inputs: Inputs, remembers: bool = False, shares: Sequence[Share] = ()) -> None:
        """Begin a step on the inputs of n examples, whose real pass has not run yet.

        Args:
            inputs: the inputs.
            remembers: whether a `pushforward` is to come, for which the real pass notes what it computed.
            shares: which parts of which batches they are, one behind the other, in several processes.
        """
        self._shares = shares
        self._inputs, self._logits, self._has_graph = inputs, None, False
        # with its graph freed, nothing of it is kept
        self._remembers = remembers and not self._lean
        self.features = self._meta_features = None

    def forward(self) -> Tensor:
        """Return the logits (n, C) of the real pass, attached; it runs when they are first asked for."""
        if self._logits is None:
            self._logits, self._has_graph = self._real_pass(), True
        return self._logits

    def _real_pass(self) -> Tensor:
        self.on_pass("forward", length_of(self._inputs))
        self._keep_buffers()
        positional, keywords = arguments(self._inputs)
        noted = self._remembered.record() if self._remembers else nullcontext()
        with noted, self._tape.record(self._shares), self._computing(), self._features_kept():
            return logits_of((self.wrapper or self._model)(*positional, **keywords))

    def backward(self, D: Tensor) -> None:
        """Add J^T D to the gradients of the parameters, D of shape (n, C), and free the real pass."""
        self.on_pass("backward", length_of(self._inputs))
        logits = self.hand_over()
        logits.backward(gradient=D.to(logits.dtype))

    def hand_over(self) -> Tensor:
        """Return the logits (n, C) of the real pass, attached, and keep nothing of the step."""
        self.forward()
        logits = self._attached()
        self._remembered.forget()
        del self._inputs
        self._logits = self._meta_features = None
        return logits

    def forward_at(self, parameters: Direction, inputs: Inputs, shares: Sequence[Share] = ()) -> Tensor:
        """Return the logits under other parameters, with these inputs' batch statistics (shares as in `begin`)."""
        self.on_pass("forward-at", length_of(inputs))
        with self._tape.fresh(shares):
            return self._call(parameters, inputs)

    def gradients_at(
        self, parameters: Direction, inputs: Inputs, D_at: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Return J^T D under other parameters, by name, with the dropout masks of the real pass.

        Args:
            parameters: detached tensors by name; the others are the network's own.
            inputs: the inputs of the real pass.
            D_at: gives D (n, C) at the logits there.
        """
        self.on_pass("forward-at", length_of(inputs))
        moved = {name: parameters.get(name, p).detach().requires_grad_() for name, p in self.parameters.items()}
        with torch.enable_grad(), self._tape.replay():
            logits = self._call(moved, inputs, self._buffers)
        self.on_pass("backward", length_of(inputs))
        gradients = torch.autograd.grad(
            logits, list(moved.values()), grad_outputs=D_at(logits.detach()).to(logits.dtype), materialize_grads=True
        )
        return dict(zip(moved, gradients, strict=True))

    @property
    def head_bias(self) -> Tensor | None:
        """The bias of the last linear layer, detached, or None if it has none."""
        bias: Tensor | None = self._model.get_submodule(self.head).bias if self.head else None  # type: ignore[assignment]  # a submodule may hold anything
        return None if bias is None else bias.detach()

    @property
    def has_meta_features(self) -> bool:
        """Whether `features_at` was asked for in this step."""
        return self._meta_features is not None

    def features_at(self, inputs: Inputs, shares: Sequence[Share] = ()) -> Tensor:
        """Return what goes into the head for these inputs, (m, d), with their batch statistics (shares as in `begin`).

        The pass does not depend on the head, so asking twice in one step, with the same tensor, costs one pass.
        """
        if self._meta_features is None or self._meta_features[0] is not inputs:
            self._meta_features = inputs, self._features_pass(inputs, shares)
        return self._meta_features[1]

    @torch.no_grad()
    def _features_pass(self, inputs: Inputs, shares: Sequence[Share]) -> Tensor:
        self.on_pass("features", length_of(inputs))
        of_training = self.features
        with self._tape.fresh(shares), self._features_kept():
            self._call(self.parameters, inputs)
        features, self.features = self.features, of_training
        assert features is not None
        return features

    def pullback(self, D: Tensor, create_graph: bool = False) -> dict[str, Tensor]:
        """Return J^T D for D of shape (n, C), by parameter name."""
        self.on_pass("pullback", length_of(self._inputs))
        real = self.forward()
        # whoever calls backward() through a graph of the gradients must not free the real pass
        logits = self._repeated() if create_graph else self._attached()
        gradients = torch.autograd.grad(
            logits,
            list(self.parameters.values()),
            grad_outputs=D.to(real.dtype),
            retain_graph=create_graph or not self._lean,
            create_graph=create_graph,
            materialize_grads=True,
        )
        if self._lean:
            self._logits, self._has_graph = real.detach(), False
        return dict(zip(self.parameters, gradients, strict=True))

    def pushforward(self, v: Direction) -> Tensor:
        """Return J v, shape (n, C), by forward-mode differentiation.

        If the real pass has not run yet, it runs here and takes the product with it, unless memory is to be saved or
        a wrapper runs it.

        Raises:
            UserError: if an operator of the network has no forward-mode rule.
        """
        if self._lean or self.wrapper is not None:
            self.forward()
        recalls = self._remembers and self._logits is not None
        self.on_pass("tangents" if recalls else "pushforward", length_of(self._inputs))
        try:
            if self._logits is None:
                product = self._real_pass_along(v)
            elif recalls:
                try:
                    with self._remembered.recall() as recalled:
                        product = self._tangent_pass(v, recalled)
                except OtherOperatorsError:
                    # the network does not do the same twice
                    product = self._tangent_pass(v)
            else:
                product = self._tangent_pass(v)
        except NotImplementedError as error:
            raise UserError(
                f"--lookahead jvp: the model has an operator without a forward-mode derivative "
                f"({str(error).splitlines()[0]}); use --lookahead double"
            ) from error
        if product is None:
            raise UserError("--lookahead jvp: the model's output does not depend on its parameters")
        return product.detach()

    def _real_pass_along(self, v: Direction) -> Tensor | None:
        """Run the real pass with tangents; return J v."""
        self._keep_buffers()
        with _tangents(), self._tape.record(self._shares), self._computing(), self._features_kept():
            duals = {name: fwad.make_dual(p, v[name]) for name, p in self.parameters.items()}
            logits = logits_of(functional_call(self._model, duals, *arguments(self._inputs)))
            self._logits, product = fwad.unpack_dual(logits)
        self._has_graph = True
        return product

    def _tangent_pass(self, v: Direction, recalled: Recall | None = None) -> Tensor | None:
        """Run the real pass again, with tangents and without a graph; return J v."""
        with _tangents(recalled), self._tape.replay():
            duals = {name: fwad.make_dual(p.detach(), v[name]) for name, p in self.parameters.items()}
            return fwad.unpack_dual(self._call(duals, self._inputs, self._buffers)).tangent

    @torch.no_grad()
    def difference(self, v: Direction, length: float) -> Tensor:
        """Return J v, shape (n, C), approximately: by one more forward pass at a distance `length` along v."""
        self.on_pass("difference", length_of(self._inputs))
        with torch.enable_grad():
            logits = self.forward()
        norm = torch.stack(torch._foreach_norm(list(v.values()))).norm()
        h = length / torch.where(norm == 0, 1, norm)
        moved = {name: p + h * v[name] for name, p in self.parameters.items()}
        with self._tape.replay():
            return (self._call(moved, self._inputs, self._buffers).to(h.dtype) - logits.to(h.dtype)) / h

    def _attached(self) -> Tensor:
        """Return the logits of the real pass with a graph."""
        return self._logits if self._logits is not None and self._has_graph else self._repeated()

    def _repeated(self) -> Tensor:
        """Return the logits of the real pass with a graph of their own."""
        self.on_pass("forward", length_of(self._inputs))
        with self._tape.replay(), _differentiable_attention():
            return self._call(self.parameters, self._inputs, self._buffers)

    def _keep_buffers(self) -> None:
        # the passes that do the same again begin with what the real pass began with
        self._buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}

    def _call(self, parameters: Direction, inputs: Inputs, buffers: Mapping[str, Tensor] | None = None) -> Tensor:
        found = self._model.named_buffers() if buffers is None else buffers.items()
        copies = {name: buffer.clone() for name, buffer in found}
        with self._computing():
            return logits_of(functional_call(self._model, (dict(parameters), copies), *arguments(inputs)))

    @contextmanager
    def _features_kept(self) -> Iterator[None]:
        """Set `features` to what goes into the head inside the block."""

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
            self.features = (*inputs, *keywords.values())[0].detach()

        if self.head is None:
            yield
            return
        handle = self._model.get_submodule(self.head).register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the network's number type, as the network is written; tell of a batch that is too small for it."""
        # the cache would keep the cast weights of one pass for the next, which runs at other weights
        autocast = torch.autocast(self._device, self.autocast, enabled=self.autocast is not None, cache_enabled=False)
        # as the innermost, so that no other mode sees these layers
        normalised = SyncBatchNorm(self._together) if self._together.sync_batchnorm else nullcontext()
        try:
            with autocast, uncompiled(self._compiled), normalised:
                yield
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "BatchNorm cannot train on a batch of one example: leave such a batch out "
                "(DataLoader(..., drop_last=True)), or take another batch size"
            ) from error


@contextmanager
def _tangents(recalled: Recall | None = None) -> Iterator[None]:
    """Carry tangents inside the block, by the rules of this package; of what is recalled, tangents alone."""
    # gradient mode is on also without a graph, so that the network's own no_grad regions can be told
    with torch.enable_grad(), fwad.dual_level(), TangentRules(recalled), _differentiable_attention():
        yield


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """Keep attention off its fused implementations, which have no rule for forward mode or a second derivative."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
