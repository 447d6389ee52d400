"""Rows a second and memory of training on a million rows of features in a mapped file, beside plain PyTorch.

OMP_NUM_THREADS=1 python benchmarks/million_rows.py --folder million

Seconds are those of the processor in the thread that trains, so that a machine with other work gives the same figures.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from torch import nn

from reweight_core import configure, hookimpl, train
from reweight_core.models.build import build_model

CLASSES, HELD_OUT = 10, 10_000
MEGABYTE = 2**20
PLAIN = "plain PyTorch"


def make(folder: Path, rows: int, columns: int) -> None:
    """Write training, meta and test rows as float16, some at a time; 40 % of the training labels are redrawn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    centers = 0.12 * rng.standard_normal((CLASSES, columns), dtype=np.float32)
    for part, count in (("test", HELD_OUT), ("meta", 1000), ("train", rows)):
        labels = rng.integers(CLASSES, size=count)
        array = open_memmap(folder / f"{part}.npy", "w+", np.float16, (count, columns))
        for start in range(0, count, 10_000):
            some = labels[start : start + 10_000]
            array[start : start + len(some)] = centers[some] + rng.standard_normal((len(some), columns), np.float32)
        array.flush()
        np.save(folder / f"{part}_true_labels.npy", labels)
        redrawn = (rng.random(count) < 0.4) & (part == "train")
        np.save(folder / f"{part}_labels.npy", np.where(redrawn, rng.integers(CLASSES, size=count), labels))


@contextmanager
def memory() -> Iterator[dict[str, float]]:
    """Note the most memory in MB that is resident, and that is without pages of files, a hundred times a second."""
    peak, stop = {"resident": 0.0, "own": 0.0}, threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            found = {
                name: int(status[key].split()[0]) / 1024 for name, key in (("resident", "VmRSS"), ("own", "RssAnon"))
            }
            peak.update({name: max(peak[name], value) for name, value in found.items()})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield peak
    stop.set()
    thread.join()


class Clock:
    """Notes the seconds from one step to another; the first ones are left out."""

    def __init__(self, steps: int, batch_size: int):
        self.first, self.last, self.batch_size = steps // 10, steps, batch_size
        self.begun = self.seconds = 0.0

    @hookimpl
    def observe_step(self, done: int, total: int) -> None:
        """Look at the clock after a step."""
        if done == self.first:
            self.begun = time.thread_time()
        if done == self.last:
            self.seconds = time.thread_time() - self.begun

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.batch_size * (self.last - self.first) / self.seconds


def ours(folder: Path, model: str, method: str, steps: int, batch_size: int) -> dict[str, float]:
    """Train with the product."""
    started, clock = time.thread_time(), Clock(steps, batch_size)
    with tempfile.TemporaryDirectory() as runs:
        shape = {"model": model, "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0}
        given = {"batch_size": batch_size, "steps": steps, "schedule": "constant", "out": Path(runs) / "run", **shape}
        done = train(configure(data="features", data_root=folder, method=method, device="cpu", **given), [clock])
    whole = time.thread_time() - started
    return {"rate": clock.rate, "around": whole - clock.seconds, "accuracy": done.summary["test_accuracy"]}


def plain(folder: Path, model: str, steps: int, batch_size: int) -> dict[str, float]:
    """Train with a loop that gathers its batches from the same mapping."""
    started, clock = time.thread_time(), Clock(steps, batch_size)
    rows, labels = np.load(folder / "train.npy", mmap_mode="r"), np.load(folder / "train_labels.npy")
    network = build_model(model, (rows.shape[1], 1, 1), CLASSES)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    # of the first rows only: a loop by hand rarely goes through all of them before
    first = torch.from_numpy(np.array(rows[:10_000])).float()
    mean, std = first.mean(0), first.std(0)
    order = np.random.RandomState(0).permutation(len(rows))[: steps * batch_size].reshape(steps, batch_size)
    targets = torch.from_numpy(labels)

    def batch(of: np.ndarray, ids: np.ndarray) -> torch.Tensor:
        return ((torch.from_numpy(of[ids]).float() - mean) / std)[:, :, None, None]

    for step, ids in enumerate(order, start=1):
        loss = F.cross_entropy(network(batch(rows, ids)), targets[torch.from_numpy(ids)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.observe_step(step, steps)
    accuracy = accuracy_of(network.eval(), batch(np.load(folder / "test.npy"), np.arange(HELD_OUT)), folder)
    return {"rate": clock.rate, "around": time.thread_time() - started - clock.seconds, "accuracy": accuracy}


@torch.no_grad()
def accuracy_of(network: nn.Module, inputs: torch.Tensor, folder: Path) -> float:
    """Return the share of test rows that are classified rightly."""
    return float((network(inputs).argmax(1).numpy() == np.load(folder / "test_labels.npy")).mean())


@click.command()
@click.option("--folder", type=Path, required=True, help="Where the rows are written once, and read.")
@click.option("--rows", default=1_000_000)
@click.option("--columns", default=768)
@click.option("--steps", default=1000, help="Steps of each training.")
@click.option("--batch-size", default=100)
@click.option("--one", nargs=2, help="Train a single one in this process and print its figures.")
def main(folder: Path, rows: int, columns: int, steps: int, batch_size: int, one: tuple[str, str] | None) -> None:
    """Print a Markdown table."""
    if one is not None:
        with memory() as peak:
            found = (
                plain(folder, one[0], steps, batch_size) if one[1] == PLAIN else ours(folder, *one, steps, batch_size)
            )
        print(json.dumps(found | peak))
        return
    if not (folder / "train_labels.npy").exists():
        make(folder, rows, columns)
    size = (folder / "train.npy").stat().st_size / MEGABYTE
    print(f"{rows:,} x {columns} float16, {size:,.0f} MB; batches of {batch_size}, {steps} steps\n")
    columns_of_table = ("network", "training", "rows a second", "cost beside plain", "the rest of the run, s")
    columns_of_table += ("peak memory, MB", "of it no pages of files, MB", "test accuracy")
    print(f"| {' | '.join(columns_of_table)} |\n|{' --- |' * len(columns_of_table)}")
    for model in ("linear", "mlp"):
        rate = 0.0
        for method in (PLAIN, "erm", "gdw"):
            command = [sys.executable, __file__, "--folder", folder, "--steps", steps, "--batch-size", batch_size]
            command += ["--one", model, method]
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            rate = rate or found["rate"]
            print(
                f"| {model} | {method} | {found['rate']:,.0f} | {rate / found['rate']:.2f} | {found['around']:.1f} | "
                f"{found['resident']:,.0f} | {found['own']:,.0f} | {found['accuracy']:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
