"""What a step costs: every method and look-ahead against plain PyTorch, in time, arithmetic and memory."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import torch
import torch.nn.functional as F

from reweight_core.config.options import Owner, fill
from reweight_core.config.run_config import RunConfig
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Fed
from reweight_core.data.prepare import PreparedData
from reweight_core.machine.device import resolve_device
from reweight_core.machine.meters import elapsed, fresh_process, high_water_mark
from reweight_core.machine.precision import products
from reweight_core.models.build import build_model
from reweight_core.plugins import registry
from reweight_core.training.loop import Trainer

PLAIN = "plain"
"""Name of the reference: forward, cross-entropy, backward and SGD in PyTorch alone."""

WARM_UP = 2
"""Steps of each cell before those that are timed; a recorded step is replayed from the third on."""


@attrs.frozen
class Cell:
    """What is measured.

    Attributes:
        method: name of a method, or `PLAIN`.
        strategy: its look-ahead, or None.
        graph: whether its steps are replayed as CUDA graphs.
    """

    method: str
    strategy: str | None = None
    graph: bool = False


REFERENCE = Cell(PLAIN)


@attrs.frozen
class Setting:
    """What all cells of a benchmark share.

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


def run(setting: Setting, cells: list[Cell], repetitions: int) -> list[dict[str, Any]]:
    """Measure every cell and the reference, interleaved in one process, and the memory of each in one of its own.

    Args:
        setting: what the cells share.
        cells: what is measured.
        repetitions: timed steps of each cell.

    Returns:
        One object a cell, the reference first: ``method``, ``strategy``, ``graph``, ``batch_size``,
        ``meta_batch_size``, ``seconds_per_step`` (median), ``ratio_to_plain``, ``ratio_to_erm`` (to erm's without a
        graph; None without such a cell), ``floor`` (arithmetic of the passes over that of plain training; None where
        it is not known) and ``peak_bytes``.
    """
    device = resolve_device(setting.device)
    with products("tf32" if setting.precision == "tf32" else "ieee"):
        trainers = {cell: trainer_of(setting, cell) for cell in cells}
        steps = {REFERENCE: plain_step(setting)} | {cell: one_step(trainer) for cell, trainer in trainers.items()}
        times: dict[Cell, list[float]] = {cell: [] for cell in steps}
        for repetition in range(repetitions + WARM_UP):
            for cell, step in steps.items():
                seconds_taken = elapsed(step, device)
                if repetition >= WARM_UP:
                    times[cell].append(seconds_taken)
        floors = {cell: floor(trainer) for cell, trainer in trainers.items()} | {REFERENCE: 1.0}
    seconds = {cell: statistics.median(values) for cell, values in times.items()}
    meta_sizes = {cell: meta_batch_size(trainer) for cell, trainer in trainers.items()}
    meta_sizes[REFERENCE] = setting.meta_batch_size
    erm = seconds.get(Cell("erm"))
    return [
        {
            **attrs.asdict(cell),
            "batch_size": setting.batch_size,
            "meta_batch_size": meta_sizes[cell],
            "seconds_per_step": seconds[cell],
            "ratio_to_plain": seconds[cell] / seconds[REFERENCE],
            "ratio_to_erm": None if erm is None else seconds[cell] / erm,
            "floor": floors[cell],
            "peak_bytes": peak_bytes(setting, cell),
        }
        for cell in steps
    ]


def trainer_of(setting: Setting, cell: Cell) -> Trainer:
    """Build the trainer of a cell on synthetic data, with its first batch fed."""
    plugin = registry.find("method", cell.method)
    config: RunConfig = fill(
        Owner("reweight", RunConfig),
        {
            "method": cell.method,
            "model": setting.model,
            "batch_size": setting.batch_size,
            "meta_batch_size": setting.meta_batch_size,
            "device": setting.device,
            "precision": setting.precision,
            "channels_last": setting.channels_last,
            "memory": setting.memory,
            "graph": "on" if cell.graph else "off",
            "lookahead": cell.strategy or "auto",
        },
        method_options=fill(Owner(cell.method, plugin.config), setting.options),
    )
    trainer = Trainer(config, synthetic(setting))
    trainer.model.train()
    trainer.step.lr.fill_(config.lr)
    sizes = setting.batch_size, setting.meta_batch_size
    trainer.step.feed(Fed(*(torch.arange(size, device=trainer.device) for size in sizes)))
    return trainer


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
    ids = np.arange(len(train))
    return PreparedData(dataset, train, ids, np.full(len(train), -1), meta, None, meta, "synthetic")


def one_step(trainer: Trainer) -> Callable[[], None]:
    """Return a function that takes one step of a trainer on its first batch."""
    size = trainer.config.batch_size
    return lambda: trainer.steps.run(size, trainer.stages[0].source)


def plain_step(setting: Setting) -> Callable[[], None]:
    """Return a function that takes one step of plain training as anybody would write it."""
    device = resolve_device(setting.device)
    memory_format = torch.channels_last if setting.channels_last else torch.contiguous_format
    torch.manual_seed(0)
    model = build_model(setting.model, setting.shape, setting.classes).to(device).to(memory_format=memory_format)
    images = torch.randn(setting.batch_size, *setting.shape, device=device).contiguous(memory_format=memory_format)
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


def meta_batch_size(trainer: Trainer) -> int:
    """Return how many examples the meta batch of a cell has."""
    if trainer.meta is None or isinstance(trainer.meta, Examples):
        return trainer.config.meta_batch_size
    return len(trainer.meta.draw_batch().labels)


def floor(trainer: Trainer) -> float | None:
    """Count the passes of one step, in units of plain training: forward 1/3, backward 2/3, forward mode 3/3.

    A meta batch of m costs m/n of a training batch. None for double backward, whose arithmetic depends on the network.
    """
    if trainer.config.lookahead == "double":
        return None
    units = {
        "_real_pass": 1.0,
        "backward": 2.0,
        "pullback": 2.0,
        # the real pass included, where it takes the product with it
        "pushforward": 3.0,
        "difference": 1.0,
        "_repeated": 1.0,
    }
    # of other inputs: a look-ahead at other parameters is differentiated once, its features alone are not
    units_an_input = {"forward_at": 3.0 / trainer.config.batch_size, "_features_pass": 1.0 / trainer.config.batch_size}
    total = 0.0
    passes = trainer.step.passes

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal total
            total += units[name] if name in units else units_an_input[name] * len(args[-1])
            return function(*args, **kwargs)

        return call

    for name in units | units_an_input:
        setattr(passes, name, counted(name, getattr(passes, name)))
    try:
        trainer.step.run(trainer.config.batch_size, trainer.stages[0].source)
    finally:
        for name in units | units_an_input:
            delattr(passes, name)
    return total / 3


def peak_bytes(setting: Setting, cell: Cell) -> int | None:
    """Measure the memory of three steps in a fresh process: its high-water mark less that before the first step."""
    given = json.dumps({"setting": attrs.asdict(setting), "cell": attrs.asdict(cell)})
    peak: int | None = fresh_process("reweight_core.measure.bench", given)
    return peak


def _measure_memory(text: str) -> int | None:
    given = json.loads(text)
    shape = tuple(given["setting"].pop("shape"))
    setting, cell = Setting(**given["setting"], shape=shape), Cell(**given["cell"])
    device = resolve_device(setting.device)
    step = plain_step(setting) if cell == REFERENCE else one_step(trainer_of(setting, cell))
    with high_water_mark(device) as mark:
        for _ in range(3):
            step()
    return mark[0]


if __name__ == "__main__":
    print(json.dumps(_measure_memory(sys.argv[1])))
