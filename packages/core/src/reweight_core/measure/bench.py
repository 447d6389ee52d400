"""What a step costs: every method and look-ahead against plain PyTorch, in time, arithmetic and memory."""

from __future__ import annotations

import gc
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import torch
import torch.nn.functional as F

from reweight_core.config.options import Owner, fill
from reweight_core.config.run_config import OWNER, RunConfig
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.prepare import PreparedData
from reweight_core.engine.cuda_graphs import CudaGraphs, RecordingError
from reweight_core.engine.passes import Pass, ignore_pass
from reweight_core.errors import UserError
from reweight_core.machine.device import memory_format, resolve_device, total_memory
from reweight_core.machine.meters import elapsed, fresh_process, high_water_mark
from reweight_core.machine.precision import products
from reweight_core.models.build import build_model
from reweight_core.plugins import registry
from reweight_core.training.build import Parts, begin, build_parts

PLAIN = "plain"
"""Name of the reference: forward, cross-entropy, backward and SGD in PyTorch alone."""

WARM_UP = 2
"""Steps of each subject before those that are timed; a recorded step is replayed from the third on."""


@attrs.frozen
class Subject:
    """What is measured.

    Attributes:
        method: name of a method, or `PLAIN`.
        strategy: its look-ahead, or None.
        graph: whether its steps are replayed as CUDA graphs.
    """

    method: str
    strategy: str | None = None
    graph: bool = False


REFERENCE = Subject(PLAIN)


@attrs.frozen
class Setting:
    """What all subjects of a benchmark share.

    Attributes:
        model: network (see ``--model``).
        shape: channels, height, width of the synthetic images.
        classes: number of classes.
        batch_size: n.
        meta_batch_size: m.
        device: where to compute.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        channels_last: whether images and kernels are in channels-last order.
        memory: ``shared`` or ``lean``.
        options: options of methods by name; a method takes those that it declares.
    """

    model: str = "resnet32"
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    batch_size: int = 100
    meta_batch_size: int = 100
    device: str = "auto"
    precision: str = "fp32"
    channels_last: bool = True
    memory: str = "shared"
    options: Mapping[str, Any] = attrs.field(factory=dict)


def run(setting: Setting, subjects: list[Subject], repetitions: int) -> list[dict[str, Any]]:
    """Measure every subject and the reference, interleaved in one process; on a CPU, the memory in others.

    Args:
        setting: what the subjects share.
        subjects: what is measured.
        repetitions: timed steps of each subject.

    Returns:
        One object a subject, the reference first: ``method``, ``strategy``, ``graph``, ``batch_size``,
        ``meta_batch_size``, ``seconds_per_step`` (median), ``ratio_to_plain``, ``ratio_to_erm`` (to erm's without a
        graph; None without such a subject), ``floor`` (arithmetic of the passes over that of plain training; None where
        it is not known) and ``peak_bytes``; ``error`` in place of the last five where a step cannot be recorded.
    """
    _refuse_huge_batches(setting)
    device = resolve_device(setting.device)
    with products(setting.precision):
        built = {subject: parts_of(setting, subject) for subject in subjects if subject.method != PLAIN}
        steps = {s: one_step(built[s]) if s in built else plain_steps(setting, s.graph) for s in (REFERENCE, *subjects)}
        seconds, errors = _medians(steps, repetitions, device)
        erm = seconds.get(Subject("erm"))
        rows = []
        for subject in steps:
            parts = built.get(subject)
            row = attrs.asdict(subject) | {"batch_size": setting.batch_size}
            row["meta_batch_size"] = setting.meta_batch_size if parts is None else meta_batch_size(parts)
            if subject in errors:
                row["error"] = errors[subject]
            else:
                row["seconds_per_step"] = seconds[subject]
                row["ratio_to_plain"] = seconds[subject] / seconds[REFERENCE]
                row["ratio_to_erm"] = None if erm is None else seconds[subject] / erm
                row["floor"] = 1.0 if parts is None else floor(parts)
                row["peak_bytes"] = peak_bytes(setting, subject)
            rows.append(row)
    return rows


def _refuse_huge_batches(setting: Setting) -> None:
    memory, largest = total_memory(), max(setting.batch_size, setting.meta_batch_size)
    # random numbers are drawn as int64 before they become pixels
    needed = largest * math.prod(setting.shape) * np.int64().nbytes
    if needed > memory / 2:
        raise UserError(
            f"--image {'x'.join(map(str, setting.shape))}: the images of a batch of {largest} would take "
            f"{needed / 2**30:.0f} of {memory / 2**30:.0f} GiB of memory; give smaller ones, or a smaller --batch-size "
            "and --meta-batch-size"
        )


def _medians(
    steps: Mapping[Subject, Callable[[], None]], repetitions: int, device: torch.device
) -> tuple[dict[Subject, float], dict[Subject, str]]:
    """Take interleaved steps; return the median seconds of each subject, or why its steps cannot be recorded."""
    times: dict[Subject, list[float]] = {subject: [] for subject in steps}
    errors: dict[Subject, str] = {}
    for _ in range(repetitions + WARM_UP):
        for subject, step in steps.items():
            try:
                if subject not in errors:
                    times[subject].append(elapsed(step, device))
            except UserError as problem:
                errors[subject] = str(problem)
    timed = {subject: values[WARM_UP:] for subject, values in times.items() if subject not in errors}
    return {subject: statistics.median(values) for subject, values in timed.items()}, errors


def parts_of(setting: Setting, subject: Subject) -> Parts:
    """Build what a subject trains with on synthetic data, with its first batch fed."""
    plugin = registry.find("method", subject.method)
    config: RunConfig = fill(
        Owner(OWNER, RunConfig),
        {
            "method": subject.method,
            "model": setting.model,
            "batch_size": setting.batch_size,
            "meta_batch_size": setting.meta_batch_size,
            "device": setting.device,
            "precision": setting.precision,
            "channels_last": setting.channels_last,
            "memory": setting.memory,
            "graph": "on" if subject.graph else "off",
            "lookahead": subject.strategy or "auto",
        },
        method_options=fill(Owner(subject.method, plugin.config), setting.options),
    )
    parts = build_parts(config, synthetic(setting))
    begin(parts)
    return parts


def synthetic(setting: Setting) -> PreparedData:
    """Make random images with random labels, one batch of training and one of meta examples."""
    rng = np.random.RandomState(0)

    def split(size: int) -> Split:
        labels = rng.permutation(np.arange(size) % setting.classes).astype(np.int64)
        return Split(rng.randint(0, 256, (size, *setting.shape)).astype(np.uint8), labels)

    channels = setting.shape[0]
    train = split(max(setting.batch_size, setting.classes))
    meta = split(max(setting.meta_batch_size, setting.classes))
    dataset = Dataset(
        train=train,
        test=meta,
        meta=meta,
        classes=tuple(map(str, range(setting.classes))),
        mean=(127.5,) * channels,
        std=(74.0,) * channels,
    )
    ids, unknown = np.arange(len(train)), np.full(len(train), -1)
    return PreparedData(dataset, train, ids, unknown, meta, np.arange(len(meta)), None, meta, "synthetic")


def one_step(parts: Parts) -> Callable[[], None]:
    """Return a function that takes one step on the batch that was fed."""
    return lambda: parts.runner.run(parts.config.batch_size, parts.stages[0])


def plain_step(setting: Setting) -> Callable[[], None]:
    """Return a function that takes one step of plain training as anybody would write it."""
    device = resolve_device(setting.device)
    order = memory_format(setting.channels_last)
    torch.manual_seed(0)
    model = build_model(setting.model, setting.shape, setting.classes).to(device).to(memory_format=order)
    images = torch.randn(setting.batch_size, *setting.shape, device=device).contiguous(memory_format=order)
    labels = torch.arange(setting.batch_size, device=device) % setting.classes
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bf16"):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def plain_steps(setting: Setting, graph: bool) -> Callable[[], None]:
    """Return what takes a step of plain training, by itself or as a recording."""
    step = plain_step(setting)
    return recorded(step, resolve_device(setting.device)) if graph else step


def recorded(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a function that takes the step by itself, then records it, and replays it from the third call on.

    It raises `UserError` if the step cannot be recorded.
    """
    graphs = CudaGraphs(device)

    def calls() -> Iterator[None]:
        graphs.run(step)
        yield
        try:
            replay = graphs.record(step)
        except RecordingError as problem:
            raise UserError(f"{problem}; use --graph off") from problem
        while True:
            yield
            replay()

    taken = calls()
    return lambda: next(taken)


def meta_batch_size(parts: Parts) -> int:
    """Return how many examples the meta batch of a subject has."""
    if parts.meta is None or isinstance(parts.meta, Examples):
        return parts.config.meta_batch_size
    return len(parts.meta.draw_batch().labels)


COSTS: Mapping[Pass, float] = {
    "forward": 1,
    "backward": 2,
    "pullback": 2,
    # the forward pass included, where it takes the product with it
    "pushforward": 3,
    "tangents": 2,
    "difference": 1,
    # a look-ahead at other parameters is differentiated once; its features alone are not
    "forward-at": 3,
    "features": 1,
}
"""What a pass costs: a forward pass is 1, a backward pass 2, forward mode 3, of which tangents alone are 2."""


def floor(parts: Parts) -> float | None:
    """Count the passes of one step by their `COSTS`, in units of plain training (3).

    A meta batch of m costs m/n of a training batch. None for double backward, whose arithmetic depends on the network.
    """
    if parts.config.lookahead == "double":
        return None
    passed: list[float] = []
    for passes in parts.passes:
        passes.on_pass = lambda kind, inputs: passed.append(COSTS[kind] * inputs / parts.config.batch_size)
    try:
        parts.step.run(parts.config.batch_size, parts.stages[0])
    finally:
        for passes in parts.passes:
            passes.on_pass = ignore_pass
    return sum(passed) / 3


def peak_bytes(setting: Setting, subject: Subject) -> int | None:
    """Measure the memory of three steps: the high-water mark less that before the first.

    That of a process can be raised by what it did before, so on a CPU a fresh one measures; a GPU's memory is counted.
    """
    if resolve_device(setting.device).type == "cuda":
        # what is freed meanwhile would be subtracted
        gc.collect()
        return measure_memory(setting, subject)
    given = json.dumps({"setting": attrs.asdict(setting), "subject": attrs.asdict(subject)})
    peak: int | None = fresh_process("reweight_core.measure.bench", given)
    return peak


def measure_memory(setting: Setting, subject: Subject) -> int | None:
    """Measure it in this process (`peak_bytes`)."""
    device = resolve_device(setting.device)
    step = plain_steps(setting, subject.graph) if subject.method == PLAIN else one_step(parts_of(setting, subject))
    with high_water_mark(device) as mark:
        for _ in range(3):
            step()
    return mark[0]


def _measure_here(text: str) -> int | None:
    given = json.loads(text)
    shape = tuple(given["setting"].pop("shape"))
    return measure_memory(Setting(**given["setting"], shape=shape), Subject(**given["subject"]))


if __name__ == "__main__":
    print(json.dumps(_measure_here(sys.argv[1])))
