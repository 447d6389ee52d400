"""What a step exchanges and how long it takes in 1, 2 and 4 processes on this machine, by method (gloo, CPU).

python benchmarks/several_processes.py
"""

import multiprocessing
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from reweight_core import configure, load_data
from reweight_core.machine.together import ALONE, Together
from reweight_core.training.build import begin, build_parts

METHODS = ("erm", "l2rw", "mwnet", "gdw", "insw", "co-teaching", "fsr")
STEPS = 10


def measured(method, together):
    """Return exchanges, their bytes and seconds of a step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = configure(
            method=method, data="digits", model="resnet20", meta_size=100, device="cpu", processes=together.size
        )
        parts = build_parts(config, load_data(config), together=together)
    size = begin(parts)
    parts.step.run(size, parts.stages[0])
    counts = []
    together.on_exchange = counts.append
    started = time.perf_counter()
    for _ in range(STEPS):
        parts.step.run(size, parts.stages[0])
    return len(counts) / STEPS, sum(counts) / STEPS, (time.perf_counter() - started) / STEPS


def work(rank, size, folder, results):
    """Measure every method as one of several processes."""
    torch.set_num_threads(1)
    together = ALONE
    if size > 1:
        meeting = f"file://{folder}/meeting-{size}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(minutes=5))
        together = Together(rank, size)
    found = [measured(method, together) for method in METHODS]
    if rank == 0:
        results.put(found)
    if size > 1:
        dist.destroy_process_group()


def main():
    """Print a table."""
    context = multiprocessing.get_context("fork")
    print(f"{'method':12}{'processes':>10}{'exchanges':>11}{'kB':>9}{'ms a step':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2, 4):
            results = context.Queue()
            started = [context.Process(target=work, args=(r, size, Path(folder), results)) for r in range(size)]
            for process in started:
                process.start()
            found = results.get()
            for process in started:
                process.join()
            for method, (exchanges, count, seconds) in zip(METHODS, found, strict=True):
                print(f"{method:12}{size:>10}{exchanges:>11.0f}{count / 1000:>9.1f}{1000 * seconds:>11.1f}")


if __name__ == "__main__":
    main()
