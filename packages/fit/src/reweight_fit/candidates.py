"""What may be tried: ways to train, the simplest first, and networks for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from reweight_core import UserError, nearest, registry
from reweight_fit.judgement import Lead

if TYPE_CHECKING:
    from reweight_core import PreparedData


MILD = Lead(0.0, 0.05)
"""What is known before it is tried of what changes plain training a little."""

HELPFUL = Lead(0.02, 0.05)
"""The same of what helps on many kinds of data, and does little harm on others."""

DARING = Lead(-0.05, 0.1)
"""The same of what may fall far behind."""


@attrs.frozen
class Candidate:
    """A way to train.

    Attributes:
        name: what it is called.
        options: options of ``reweight train`` that make it, by name; all others are the user's or the defaults.
        uses_trusted: whether it learns from trusted examples, so that it is judged on those which it did not get.
        cost: its time in that of plain training, about; what was measured counts once it is.
        expected: its lead over plain training, as far as it is known before anything is tried. On few examples a lead
            is as often luck as merit, and more so of what may be far behind.
        for_unbalanced: whether it is tried only where classes are unbalanced.
        lr_factor: factor of the learning rate of SGD.
    """

    name: str
    options: Mapping[str, Any] = attrs.field(eq=False)
    uses_trusted: bool = False
    cost: float = 1.0
    expected: Lead = MILD
    for_unbalanced: bool = False
    lr_factor: float = 1.0

    @property
    def plugins(self) -> list[tuple[str, str]]:
        """Kind and name of the plugins that it needs."""
        found = [(kind, self.options[kind]) for kind in ("method", "loss") if kind in self.options]
        return found + [("component", name) for name in self.options.get("with", ())]


PLAIN, TRUSTED = "erm", "clean-only"
"""The two things that anybody could do without us: plain training, and training on the trusted examples alone."""

CANDIDATES: Sequence[Candidate] = (
    Candidate(PLAIN, {"method": "erm"}),
    Candidate(TRUSTED, {"method": "clean-only"}, uses_trusted=True, expected=DARING),
    Candidate("balanced-softmax", {"method": "erm", "loss": "balanced-softmax"}, expected=HELPFUL, for_unbalanced=True),
    Candidate("elr", {"method": "erm", "loss": "elr"}, expected=HELPFUL),
    Candidate("both", {"method": "erm", "meta_use": "both"}, uses_trusted=True, cost=1.1, expected=HELPFUL),
    Candidate("fsr", {"method": "fsr", "with": ("mixup", "relabel")}, cost=2.5, expected=HELPFUL),
    Candidate("posterior-label", {"method": "posterior-label"}, uses_trusted=True, cost=1.4, expected=DARING),
    Candidate("gce", {"method": "erm", "loss": "gce"}, expected=DARING),
    Candidate("fine-tune", {"method": "erm", "with": ("fine-tune",)}, uses_trusted=True, cost=1.1, expected=HELPFUL),
    Candidate("glc", {"method": "glc"}, uses_trusted=True, cost=1.4, expected=DARING),
    Candidate("co-teaching", {"method": "co-teaching"}, cost=2.5),
    Candidate("gdw", {"method": "gdw"}, uses_trusted=True, cost=3.5, expected=HELPFUL),
    # the official rates make its steps rest on few examples where images are of other data
    Candidate("l2rw", {"method": "l2rw"}, uses_trusted=True, cost=3.5, expected=DARING, lr_factor=0.2),
    Candidate("mwnet", {"method": "mwnet"}, uses_trusted=True, cost=3.5),
)
"""All of them."""

CHOSEN = (
    *("method", "loss", "with", "preset", "meta_use"),
    *("val_size", "val_labels", "val_fold", "best_by", "patience", "out"),
)
"""Options of train that are not the user's here."""

UNBALANCED = 3.0
"""Classes are unbalanced where the largest has so many times the examples of the smallest."""

SMALL_INPUT = 1024
"""Numbers of an example up to which a linear network of few trusted examples may be as good as any."""

PASSES = 150
"""Passes over the trusted examples alone, at most: so few are soon known by heart."""


@attrs.frozen
class Network:
    """A network, with what trains it well on so many examples.

    Attributes:
        name: what it is called.
        options: options of ``reweight train``, from the number of examples that it learns from.
    """

    name: str
    options: Callable[[int], Mapping[str, Any]] = attrs.field(eq=False)


def _linear(examples: int) -> dict[str, Any]:
    """Return what has scikit-learn's LogisticRegression (C = 1) as its optimum."""
    training = {"optimizer": "adam", "lr": 0.01, "weight_decay": 1 / examples, "batch_size": min(50, examples)}
    return {"model": "linear", "steps": 1000, **training}


def _perceptron(examples: int) -> dict[str, Any]:
    training = {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.05, "batch_size": min(100, examples)}
    return {"model": "mlp", "steps": min(20_000, max(500, 40 * examples // 100)), **training}


DEFAULT = Network("default", lambda examples: {})
"""The network that the user names, or the data's default."""

NETWORKS = {
    network.name: network for network in (DEFAULT, Network("linear", _linear), Network("perceptron", _perceptron))
}
"""All of them."""


def is_unbalanced(counts: np.ndarray) -> bool:
    """Return whether classes with so many examples are unbalanced (`UNBALANCED`)."""
    return bool(counts.max() >= UNBALANCED * max(1, counts.min()))


@attrs.frozen(eq=False)
class Facts:
    """What is known of the data and of the user's wishes before anything is tried.

    Args:
        data: the data of a run.
        given: names of the options that the user gave.
        default_model: the network of plain training.
    """

    data: PreparedData
    given: Collection[str]
    default_model: str

    @property
    def trusted(self) -> int:
        """Number of trusted examples."""
        return 0 if self.data.meta is None else len(self.data.meta)

    @cached_property
    def counts(self) -> np.ndarray:
        """Training examples of each class by observed label, (C,)."""
        return np.bincount(self.data.train.labels, minlength=len(self.data.dataset.classes))

    @property
    def unbalanced(self) -> bool:
        """Whether the classes are (`UNBALANCED`)."""
        return is_unbalanced(self.counts)

    def networks(self) -> list[Network]:
        """Return the networks that plain training is tried with; that of a user who named one is not exchanged."""
        found = [DEFAULT]
        if self._has_small_inputs and not self._is_settled and self.default_model != "linear":
            found.append(NETWORKS["linear"])
        if self.data.dataset.has_features and not self._is_settled:
            found.append(NETWORKS["perceptron"])
        return found

    def trusted_networks(self) -> list[Network]:
        """Return the networks that the trusted examples alone are tried with."""
        if not self._has_small_inputs or self._is_settled:
            return [DEFAULT]
        return [NETWORKS["linear"]] if self.default_model == "linear" else [DEFAULT, NETWORKS["linear"]]

    @property
    def _has_small_inputs(self) -> bool:
        return math.prod(self.data.dataset.input_shape) <= SMALL_INPUT

    @property
    def _is_settled(self) -> bool:
        return bool({"model", "optimizer", "init_from", "pretrained", "steps", "epochs", "lr"} & set(self.given))


def refuse_chosen(options: Mapping[str, Any]) -> None:
    """Raise `UserError` for an option that is not the user's here."""
    for name in CHOSEN:
        if name in options:
            raise UserError(f"--{name.replace('_', '-')}: is chosen by fit; leave it out, or use reweight train")


def candidates_for(names: Sequence[str] | None, facts: Facts) -> list[Candidate]:
    """Choose what is tried on some data: what is installed, and can be used there.

    Args:
        names: names that the user asks for; None for all.
        facts: what is known of the data.

    Raises:
        UserError: for an unknown name, or one that cannot be used.
    """
    known = {candidate.name: candidate for candidate in CANDIDATES}
    for name in names or ():
        if name not in known:
            raise UserError(f"--candidates {name}: there is none of this name{nearest(name, known)}")
    chosen = []
    for candidate in CANDIDATES:
        problem = _problem(candidate, facts)
        is_needed = candidate.name == PLAIN or (candidate.name == TRUSTED and problem is None)
        if names is None:
            if problem is None and (facts.unbalanced or not candidate.for_unbalanced):
                chosen.append(candidate)
        elif candidate.name in names or is_needed:
            if problem is not None:
                raise UserError(f"--candidates {candidate.name}: {problem}")
            chosen.append(candidate)
    return chosen


def _problem(candidate: Candidate, facts: Facts) -> str | None:
    """Say why a candidate cannot be used, if it cannot."""
    if candidate.uses_trusted and not facts.trusted:
        return "learns from trusted examples, and there are none: give --meta-size N"
    for kind, name in candidate.plugins:
        if name not in registry.names(kind):
            return f"needs the {kind} '{name}', which is not installed"
    return None
