"""Batches that a loop of the user's own gives: checked, and put on the network's device."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from reweight_core.data.batch import Batch, Source
from reweight_core.data.inputs import Inputs, length_of, mapped, tensors_of
from reweight_core.errors import UserError, reason


@attrs.frozen
class Expected:
    """What a batch must fit.

    Attributes:
        num_classes: number of classes C.
        size: number of examples in the set N, or None where the ids are not given.
        device: where the network lies.
        source: what the batches are taken from.
    """

    num_classes: int
    size: int | None
    device: torch.device
    source: Source = "train"

    def batch(self, inputs: Inputs, labels: Any) -> Batch:
        """Return a batch without positions on the device; values are looked at only where they lie on the CPU.

        Args:
            inputs: whatever the network takes.
            labels: observed labels (n,).

        Raises:
            UserError: if labels are not n whole numbers of their range, or the inputs not as many.
        """
        return self._batch(inputs, labels, None)

    def numbered(self, inputs: Inputs, labels: Any, ids: Any) -> Batch:
        """Return a batch with the examples' positions in the set, whole numbers (n,); else as `batch`."""
        return self._batch(inputs, labels, self._whole("ids", ids, self.size))

    def labels(self, inputs: Inputs, labels: Any) -> Tensor:
        """Return the labels of inputs as int64 where they lie (errors as `batch`)."""
        labels = self._whole("labels", labels, self.num_classes)
        if next(tensors_of(inputs), None) is not None and length_of(inputs) != len(labels):
            raise UserError(f"{self._where} has {length_of(inputs)} inputs for {len(labels)} labels")
        return labels

    def _batch(self, inputs: Inputs, labels: Any, ids: Tensor | None) -> Batch:
        labels = self.labels(inputs, labels)
        if ids is None:
            ids = torch.arange(len(labels))
        elif ids.shape != labels.shape:
            raise UserError(f"the batch has {len(ids)} ids for {len(labels)} labels")
        labels, ids = (tensor.to(self.device, non_blocking=True) for tensor in (labels, ids))
        moved = mapped(lambda tensor: tensor.to(self.device, non_blocking=True), inputs)
        return Batch(ids, moved, labels, source=self.source)

    @property
    def _where(self) -> str:
        return "meta=" if self.source == "meta" else "the batch"

    def _whole(self, what: str, given: Any, end: int | None) -> Tensor:
        where = "meta=" if self.source == "meta" else "a batch"
        problem = f"the {what} of {where} must be whole numbers, a tensor (n,), but are"
        try:
            values = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"{problem} no numbers at all ({type(given).__name__})") from None
        if values.dim() != 1 or values.is_floating_point() or values.dtype == torch.bool or not len(values):
            raise UserError(f"{problem} {values.dtype}, shape {tuple(values.shape)}")
        values = values.to(torch.int64)
        if end is not None and values.device.type == "cpu" and ((values < 0) | (values >= end)).any():
            name = "num_classes" if what == "labels" else "train_size"
            raise UserError(
                f"the {what} of {where} go from {values.min()} to {values.max()}; {name}={end} allows 0 to {end - 1}"
            )
        return values


def inputs_and_labels(batch: Any, argument: str) -> tuple[Inputs, Any]:
    """Take a batch or example apart: ``(inputs, labels, ...)``, or a mapping with ``labels`` or ``label`` in it.

    Args:
        batch: what was given.
        argument: where, for messages: ``meta=``.

    Raises:
        UserError: if it is neither.
    """
    if isinstance(batch, Mapping):
        inputs = dict(batch)
        for name in ("labels", "label"):
            if name in inputs:
                return inputs, inputs.pop(name)
    elif isinstance(batch, Sequence) and len(batch) >= 2:
        return batch[0], batch[1]
    found = f"has {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"is a {type(batch).__name__}"
    raise UserError(f"{argument}: a batch or example must be (inputs, labels), or a mapping with 'labels', but {found}")


def _collated(dataset: Any, positions: Tensor) -> Any:
    """Return the examples at some positions as one batch, by the dataset's own ``collate_fn`` if it has one."""
    return getattr(dataset, "collate_fn", default_collate)([dataset[i] for i in positions.tolist()])


class GivenExamples:
    """The training set of the user, by position, for methods that look at examples between steps.

    Args:
        expected: what its examples fit.
        dataset: ``dataset[i]`` is ``(input, label)`` or a mapping with ``label``; None if it was not given.
        labels: the observed labels (N,), or None for those in the dataset.

    Raises:
        UserError: if the labels do not fit.
    """

    files = None
    memory_format = torch.contiguous_format

    def __init__(self, expected: Expected, dataset: Any, labels: Any):
        self._expected, self._dataset, self.num_classes = expected, dataset, expected.num_classes
        if labels is None:
            labels = [int(inputs_and_labels(dataset[i], "dataset=")[1]) for i in range(expected.size or 0)]
        self.labels = attrs.evolve(expected, size=None).batch((), labels).labels
        if len(self) != expected.size:
            raise UserError(f"labels= has {len(self)} labels for train_size={expected.size}")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, ids: Tensor, generator: torch.Generator | None, pixels: Tensor | None = None) -> Batch:
        """Return the examples at some positions, as the dataset gives them."""
        if self._dataset is None:
            raise UserError("looks at training examples between steps: give dataset=, of (input, label) by position")
        inputs, labels = inputs_and_labels(_collated(self._dataset, ids), "dataset=")
        return attrs.evolve(self._expected.batch(inputs, labels), ids=ids)

    def in_order(self, size: int, workers: int) -> Iterator[Batch]:
        """Go through all examples once, in batches of `size`."""
        for ids in torch.arange(len(self), device=self.labels.device).split(size):
            yield self.batch(ids, None)


def _is_pair(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2 and hasattr(source[1], "__array__")


def _tensors(given: Any) -> Any:
    """Return the structure with tensors in the place of arrays."""
    if isinstance(given, Mapping):
        return {name: _tensors(part) for name, part in given.items()}
    if isinstance(given, tuple | list):
        return tuple(map(_tensors, given))
    if isinstance(given, Tensor) or not hasattr(given, "__array__"):
        return given
    try:
        return torch.as_tensor(np.asarray(given))
    except TypeError as error:
        raise UserError(f"meta=: an array that cannot be a tensor ({reason(error)})") from error


def _tell_missing_classes(labels: Tensor, num_classes: int) -> None:
    missing = (torch.bincount(labels, minlength=num_classes) == 0).nonzero().flatten().tolist()
    if missing:
        more = f" and of {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.warn(
            f"meta= has no example of class {missing[0]}{more}: methods that learn from it will take such examples for "
            "useless",
            stacklevel=5,
        )


class MetaBatches:
    """The clean batches of a loop.

    Args:
        source: a loader, or anything else that gives ``(inputs, labels)`` again and again; a dataset of such examples,
            which may have a ``collate_fn``; or all of them, as tensors or arrays, in a pair or a mapping. Of the last
            two a batch is drawn in random order, without repeats.
        expected: what batches fit.
        size: m, where they are drawn.
        generator: source of these draws, on the CPU.

    Raises:
        UserError: if the source is none of these, is empty, or its first batch does not fit.
    """

    def __init__(self, source: Any, expected: Expected, size: int, generator: torch.Generator):
        self._source, self._expected, self._generator = source, expected, generator
        self._at_hand: Batch | None = None
        self._order, self._place = torch.empty(0, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
        if isinstance(source, Mapping) or _is_pair(source):
            inputs, labels = inputs_and_labels(source, "meta=")
            inputs, labels = _tensors(inputs), _tensors(labels)
            if next(tensors_of(inputs), None) is None:
                raise UserError("meta=: the inputs of a pair or mapping must be tensors or arrays")
            on_cpu = expected.labels(inputs, labels.cpu() if isinstance(labels, Tensor) else labels)
            _tell_missing_classes(on_cpu, expected.num_classes)
            self._source = inputs, on_cpu.to(getattr(labels, "device", "cpu"))
        self._drawn = self._passed_through()
        self._count = self._number_of_examples()
        self._m = min(size, self._count or size)
        self._check_first()

    def _number_of_examples(self) -> int | None:
        if _is_pair(self._source):
            return len(self._source[1])
        if not hasattr(self._source, "__getitem__") or isinstance(self._source, Sequence):
            return None
        if not hasattr(self._source, "__len__"):
            raise UserError("meta=: the length of the dataset is not known: give a loader of its batches")
        return len(self._source)

    def _check_first(self) -> None:
        """Refuse what gives no batch, as far as that is seen without going through a loader."""
        source = self._source
        if self._count is None and not hasattr(source, "__iter__"):
            raise UserError(
                f"meta= must be a loader, a dataset, or (inputs, labels) as tensors, but is a {type(source).__name__}"
            )
        if self._count == 0 or (isinstance(source, Sequence) and not len(source)):
            raise UserError("meta= is empty: give at least one clean example")
        if self._count is None and not isinstance(source, Sequence):
            return
        try:
            first = (
                inputs_and_labels(source[0], "meta=") if self._count is None else self._chosen(torch.zeros(1).long())
            )
        except (LookupError, TypeError) as error:
            raise UserError(f"meta=: the first example cannot be had: {reason(error)}") from error
        self._expected.labels(*first)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise UserError(
            f"asks for the clean examples themselves ({name}), and a loop gives them in batches: use reweight train"
        )

    def next(self) -> None:
        """Let go of the batch at hand: the next draw gives another."""
        self._at_hand = None

    def example_batch(self) -> Batch | None:
        """Return some of the examples, whatever comes next; None of a loader, which would have to go on."""
        if self._count is None:
            if not isinstance(self._source, Sequence):
                return None
            inputs, labels = inputs_and_labels(self._source[0], "meta=")
        else:
            inputs, labels = self._chosen(torch.arange(self._m))
        return self._expected.batch(inputs, labels)

    def draw_batch(self) -> Batch:
        """Return the batch of a step; the same until `next`."""
        if self._at_hand is None:
            inputs, labels = next(self._drawn) if self._count is None else self._chosen(self._positions(self._count))
            self._at_hand = self._expected.batch(inputs, labels)
        return self._at_hand

    def _passed_through(self) -> Iterator[tuple[Inputs, Any]]:
        """Go through the batches of a loader endlessly."""
        source: Iterable[Any] = self._source
        while True:
            empty = True
            for batch in source:
                empty = False
                yield inputs_and_labels(batch, "meta=")
            if empty:
                raise UserError(
                    "meta= gives no batch (any more): give a loader, a dataset or a pair of tensors, which can be gone "
                    "through again, and no iterator"
                )

    def _positions(self, count: int) -> Tensor:
        place = int(self._place)
        if len(self._order) < place + self._m:
            fresh = torch.randperm(count, generator=self._generator)
            self._order, place = torch.cat([self._order[place:], fresh]), 0
        self._place.fill_(place + self._m)
        return self._order[place : place + self._m]

    def _chosen(self, positions: Tensor) -> tuple[Inputs, Any]:
        if _is_pair(self._source):
            inputs, labels = self._source
            return mapped(lambda tensor: tensor[positions.to(tensor.device)], inputs), labels[
                positions.to(labels.device)
            ]
        return inputs_and_labels(_collated(self._source, positions), "meta=")

    def state_dict(self) -> dict[str, Tensor]:
        """Return which examples come next; where a loader is is not known here."""
        return {"order": self._order, "place": self._place, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._order = state["order"].clone()
        self._place.copy_(state["place"])
        self._generator.set_state(state["generator"])
