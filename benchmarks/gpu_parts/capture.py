"""Replayed steps against single steps: each subject is trained twice step by step, and once by recordings.

On a CPU the recorder of the tests stands for CUDA graphs. Prints a list of objects as JSON.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import click
import numpy as np
import torch
from PIL import Image

from gpu_parts.subjects import subjects
from reweight_core import Dataset, ImageFiles, PreparedData, RunConfig, Split, configure, registry
from reweight_core.config.load_data import plan_of
from reweight_core.data.prepare import prepare
from reweight_core.engine.cuda_graphs import Backend, CudaGraphs, RecordedSteps
from reweight_core.machine.precision import products
from reweight_core.runs.checkpoint import load_latest
from reweight_core.training.build import build_parts
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import train_parts

CLASSES = 10
OF_NOISE = 10
"""How often the difference of two equal trainings a replay may differ by, where these differ."""


class Counting:
    """A backend that counts its replays."""

    def __init__(self, backend: Backend):
        self.replays, self._backend = 0, backend
        self.run = backend.run

    def record(self, take: Callable[[], None]) -> Callable[[], None]:
        """See `Backend.record`."""
        replay = self._backend.record(take)

        def counted() -> None:
            self.replays += 1
            replay()

        return counted


class StepByStep:
    """A backend that takes each step in the surroundings of a recording, and records none."""

    def __init__(self, backend: Backend):
        self.run = backend.run

    def record(self, take: Callable[[], None]) -> Callable[[], None]:
        """See `Backend.record`."""
        self.run(take)
        return lambda: self.run(take)


def stripes(per_class: int, size: int) -> Dataset:
    """Make coloured stripes in noise, a direction and width for each class."""
    rng = np.random.RandomState(0)
    rows, columns = np.mgrid[:size, :size]
    waves = np.stack([np.sin((rows if c % 2 else columns) * (1 + c // 2) / 2) for c in range(CLASSES)])

    def split(count: int) -> Split:
        labels = np.tile(np.arange(CLASSES), count)
        pixels = 128 + 60 * waves[labels][:, None] + 30 * rng.randn(len(labels), 3, size, size)
        return Split(pixels.clip(0, 255).astype(np.uint8), labels)

    names = tuple(f"class {c}" for c in range(CLASSES))
    return Dataset(split(per_class), split(5), names, (128.0,) * 3, (52.0,) * 3, augment="crop-flip", padding=2)


def in_files(dataset: Dataset, folder: Path) -> Dataset:
    """Write the images of a dataset to files, to be read while training."""

    def written(part: str, split: Split) -> Split:
        assert isinstance(split.images, np.ndarray)
        names = np.array([f"{part}-{i}.png" for i in range(len(split))], dtype=object)
        for name, pixels in zip(names, split.images, strict=True):
            Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(folder / name)
        return Split(ImageFiles(folder, names, dataset.input_shape[1]), split.labels, tuple(names))

    assert dataset.test is not None
    return attrs.evolve(dataset, train=written("train", dataset.train), test=written("test", dataset.test))


@attrs.frozen
class Trained:
    """What a training ended with: all tensors of its last checkpoint by name, replayed steps and seconds."""

    tensors: dict[str, torch.Tensor]
    replays: int
    seconds: float


def train(config: RunConfig, data: PreparedData, records: bool) -> Trained:
    """Train in a temporary folder, by recordings or step by step."""
    gc.collect()
    with products(config.precision), tempfile.TemporaryDirectory() as temporary:
        parts = build_parts(config, data)
        if parts.device.type == "cuda":
            counting = Counting(CudaGraphs(parts.device, parts.step.generators.values()))
            runner = RecordedSteps(parts.step, counting, required=True) if records else parts.step
        else:
            # needs pytest, which a machine with a GPU may lack
            from reweight_core.testing.recorder import CpuBackend

            # some of torch's forward-mode rules round differently while a step is recorded on a CPU
            counting = Counting(CpuBackend())
            runner = RecordedSteps(parts.step, counting if records else StepByStep(CpuBackend()), required=True)
        parts = attrs.evolve(parts, runner=runner)
        run, started = Path(temporary) / "run", time.perf_counter()
        run.mkdir()
        train_parts(parts, HeldOut.of(config, data, parts.device), run)
        seconds = time.perf_counter() - started
        kept = load_latest(run / "checkpoints")
        return Trained({**kept.model, **kept.state}, counting.replays, seconds)


def difference(one: Trained, other: Trained) -> tuple[float, str | None]:
    """Return the largest difference of two trainings, and the tensor that has it; 0 and None if they are equal."""
    if one.tensors.keys() != other.tensors.keys():
        return float("inf"), ", ".join(sorted(one.tensors.keys() ^ other.tensors.keys())[:3])
    largest, worst = 0.0, None
    for name, tensor in one.tensors.items():
        if not torch.equal(tensor, other.tensors[name]):
            apart = (tensor.double() - other.tensors[name].double()).abs().max().item()
            # a difference of something that is not a number is infinite
            apart = apart if apart == apart else float("inf")
            if worst is None or apart > largest:
                largest, worst = apart, name
    return largest, worst


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch take algorithms that give the same bits every time, as far as it has them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def compare(config: RunConfig, data: PreparedData) -> dict[str, Any]:
    """Return how replays compare with single steps, beside how single steps compare with themselves.

    ``equal`` are replays with the bits of single steps; where the usual algorithms give other bits every time, with
    deterministic ones. Those that differ then, but usually by `OF_NOISE` times that at most, are ``within`` it, others
    ``different``.
    """
    single, again, replayed = (train(config, data, records) for records in (False, False, True))
    noise, apart = difference(single, again), difference(single, replayed)
    verdict = "equal" if apart[1] is None else "different"
    found = {"noise": noise[0], "noisiest": noise[1], "difference": apart[0], "worst": apart[1]}
    if apart[1] is not None and noise[1] is not None:
        with deterministic():
            single, replayed = train(config, data, False), train(config, data, True)
        apart = difference(single, replayed)
        found |= {"deterministic_difference": apart[0], "deterministic_worst": apart[1]}
        if apart[1] is None:
            verdict = "equal"
        elif found["difference"] <= OF_NOISE * noise[0]:
            verdict = "within"
    if not replayed.replays:
        verdict = "different"
        found["error"] = "no step was replayed"
    return {"verdict": verdict, "replays": replayed.replays, "seconds": [single.seconds, replayed.seconds], **found}


def configured(options: dict[str, Any], device: str, tiny: bool) -> RunConfig:
    """Return the configuration of a subject's trainings."""
    n = batch_size(tiny)
    usual = {"epochs": 2, "batch_size": n, "meta_batch_size": n // 2, "meta_size": 2 * CLASSES, "augment": "crop-flip"}
    usual |= {"model": "mlp" if tiny else "resnet32", "noise": "uniform:0.4", "precision": "fp32"}
    usual |= {"device": device, "graph": "off"}
    if registry.find("method", options["method"]).looks_ahead == "network":
        usual["lookahead"] = "jvp"
    return configure(RunConfig, **usual | options)


def batch_size(tiny: bool) -> int:
    """Return the number of examples n of a batch."""
    return 8 if tiny else 100


@click.command()
@click.option("--device", required=True)
@click.option("--tiny", is_flag=True)
@click.argument("names", nargs=-1, required=True)
def main(device: str, tiny: bool, names: tuple[str, ...]) -> None:
    """Compare the subjects of these names."""
    warnings.simplefilter("ignore")
    known, rows = subjects(on_gpu=device != "cpu"), []
    # whole batches, of which all but two an epoch are replays, and a part of one
    examples = batch_size(tiny) * (4 if tiny else 7) + batch_size(tiny) // 2
    dataset = stripes(-(-examples // CLASSES) + 2, size=8 if tiny else 32)
    for name in names:
        options: dict[str, Any] = dict(known[name])
        row = {"subject": name}
        try:
            with tempfile.TemporaryDirectory() as folder:
                source = in_files(dataset, Path(folder)) if options.pop("files", False) else dataset
                config = configured(options, device, tiny)
                row |= compare(config, prepare(source, plan_of(config)))
        except Exception as error:
            text = traceback.format_exc().splitlines()[-8:]
            row |= {"verdict": "error", "error": f"{type(error).__name__}: {error}", "traceback": text}
        rows.append(row)
    click.echo(json.dumps(rows))


if __name__ == "__main__":
    main()
