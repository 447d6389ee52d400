"""Whether K processes are one: every method, loss and component after 20 steps, and runs of which a process is killed.

python benchmarks/processes_agree.py matrix
python benchmarks/processes_agree.py kills --times 10
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

from reweight_core.machine.together import ALONE, Together

sys.path.append(str(Path(__file__).parents[1] / "tests"))
runs = import_module("runs_in_processes")

EPOCHS = 5
"""Of four steps."""


def cases(size):
    """Give the name, the networks of one process and of several, the options, and whether BatchNorm is synchronised."""
    for name, options in runs.RUNS.items():
        yield name, runs.PLAIN, runs.PLAIN, options, False
    for name, options in runs.SYNCHRONISED.items():
        yield f"{name}, BatchNorm synchronised", runs.NORMALISED, runs.NORMALISED, options, True
        yield f"{name}, BatchNorm by process", runs.BY_PROCESS[size], runs.NORMALISED, options, False


def work(rank, size, folder):
    """Train every case as one of several processes, and save its last state."""
    warnings.simplefilter("ignore")
    runs.joined(rank, size, folder)
    torch.set_default_dtype(torch.float64)
    for place, (_, _, model, options, synchronised) in enumerate(cases(size)):
        together = Together(rank, size, sync_batchnorm=synchronised)
        torch.save(runs.trained(model, options, together, EPOCHS)[0], folder / f"{size}-{rank}-{place}.pt")
    dist.destroy_process_group()


def matrix():
    """Print the largest difference of any process from one, for every case."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in (2, 4):
            if runs.fork(work, size, folder):
                sys.exit(f"one of {size} processes failed")
            for place, (case, model, _, options, _) in enumerate(cases(size)):
                one = runs.trained(model, options, ALONE, EPOCHS)[0]
                files = [folder / f"{size}-{rank}-{place}.pt" for rank in range(size)]
                found.setdefault(case, []).append(max(runs.difference(torch.load(file), one) for file in files))
    print(f"{'':44}{'2 processes':>14}{'4 processes':>14}")
    for case, worst in found.items():
        print(f"{case:44}" + "".join(f"{one:14.1e}" for one in worst))
    print(f"{'largest':44}" + "".join(f"{max(column):14.1e}" for column in zip(*found.values(), strict=True)))


def program(*arguments):
    """Start the program."""
    command = [sys.executable, "-m", "reweight_core", *map(str, arguments), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kills(times, seed):
    """Kill a process of a run of two at any moment after its first checkpoint, and go on; print what came of each."""
    rng = random.Random(seed)
    options = [text for name, value in runs.DIGITS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    options += ["--epochs", "20", "--processes", "2"]
    last = "checkpoints/step-00000280"
    files = ("samples.safetensors", f"{last}/model.safetensors", f"{last}/state.safetensors")
    good = 0
    with tempfile.TemporaryDirectory() as name:
        whole, run = Path(name) / "whole", Path(name) / "run"
        began = time.monotonic()
        assert program("train", *options, "--out", whole).wait() == 0
        for number in range(times):
            shutil.rmtree(run, ignore_errors=True)
            launcher = program("train", *options, "--out", run)
            while not list(run.glob("checkpoints/step-*")):
                time.sleep(0.01)
            first = time.monotonic()
            time.sleep(rng.uniform(0, 2))
            listed = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
            rank = rng.randrange(2)
            os.kill(int(listed[rank]), signal.SIGKILL)
            killed = time.monotonic()
            _, said = launcher.communicate(timeout=60)
            ended = time.monotonic() - killed
            epochs = len((run / "metrics.jsonl").read_text().splitlines())
            resumed = program("resume", run).wait(timeout=600)
            same = resumed == 0 and all((run / file).read_bytes() == (whole / file).read_bytes() for file in files)
            good += same and launcher.returncode == 2 and said.count("\n") == 1
            print(
                f"{number + 1}: process {rank} {killed - first:.2f} s after the first checkpoint, {epochs} epochs "
                f"done; ended in {ended:.1f} s, status {launcher.returncode}, {said.count(chr(10))} line; same: {same}",
                flush=True,
            )
    print(f"{good} of {times} ended in one line and went on to the same bits ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("matrix", "kills"))
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    matrix() if given.what == "matrix" else kills(given.times, given.seed)
