"""What a checkpoint takes: bytes and time, for networks of CIFAR's size with 50,000 training examples.

python benchmarks/checkpoint_cost.py --models resnet32,wrn-28-10
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch

from reweight_core.config.resolve import plainly_configured
from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.prepare import PreparedData
from reweight_core.machine.interruption import Interruption
from reweight_core.training.build import Parts, begin, build_parts
from reweight_core.training.saving import Saving
from reweight_core.training.state import TrainingState

EXAMPLES = 50_000
INTERVAL = 300.0
"""Seconds between two checkpoints, as the default has it."""


def parts_of(model: str, method: str) -> Parts:
    """Build what a run on images like CIFAR-10's trains with."""
    rng = np.random.RandomState(0)

    def split(size: int) -> Split:
        return Split(rng.randint(256, size=(size, 3, 32, 32)).astype(np.uint8), np.arange(size) % 10)

    dataset = Dataset(train=split(EXAMPLES), test=None, classes=tuple("abcdefghij"), mean=(127.0,) * 3, std=(60.0,) * 3)
    data = PreparedData(
        dataset=dataset,
        train=dataset.train,
        ids=np.arange(EXAMPLES),
        true_labels=dataset.train.labels,
        meta=split(100),
        meta_ids=np.arange(100),
        val=None,
        test=None,
        fingerprint="random",
    )
    config = plainly_configured({"method": method, "model": model, "batch_size": 8, "meta_batch_size": 8, "epochs": 1})
    return build_parts(config, data)


@click.command()
@click.option("--models", default="resnet32,wrn-28-10", show_default=True, help="Networks, separated by commas.")
@click.option("--method", default="gdw", show_default=True, help="Method.")
@click.option("--repetitions", default=9, show_default=True, help="Checkpoints of each.")
def main(models: str, method: str, repetitions: int) -> None:
    """Print a table as Markdown: medians, and the longest."""
    click.echo("| network | MB | ms (median) | ms (longest) | share of the time, one in 5 min |")
    click.echo("| --- | --- | --- | --- | --- |")
    for model in models.split(","):
        parts = parts_of(model, method)
        size = begin(parts)
        # it makes the optimizer's state
        parts.runner.run(size, parts.stages[0], epoch=0)
        state, seconds = TrainingState(parts), []
        with tempfile.TemporaryDirectory(dir=".") as run:
            saving = Saving(state, Path(run), "", None, Interruption())
            for step in range(repetitions):
                state.steps_done = step
                if parts.device.type == "cuda":
                    torch.cuda.synchronize()
                started = time.perf_counter()
                saving.save()
                seconds.append(time.perf_counter() - started)
            newest = max((Path(run) / "checkpoints").iterdir())
            bytes_ = sum(file.stat().st_size for file in newest.iterdir())
        median, longest = statistics.median(seconds), max(seconds)
        share = 100 * median / INTERVAL
        click.echo(f"| {model} | {bytes_ / 1e6:.1f} | {1000 * median:.0f} | {1000 * longest:.0f} | {share:.3f} % |")


if __name__ == "__main__":
    main()
