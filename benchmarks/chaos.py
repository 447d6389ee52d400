"""Kills training processes at random places, goes on with the same line, and compares with runs that were left alone.

python benchmarks/chaos.py --kills 100 --jobs 2
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import attrs
import click

from reweight_core import RunConfig, configure, hookimpl
from reweight_core.config.resolve import known_options
from reweight_core.plugins import registry

TINY: Mapping[str, Any] = {
    "data": "digits",
    "noise": "uniform:0.4",
    "model": "mlp",
    "augment": "none",
    "epochs": 3,
    "batch_size": 300,
    "meta_size": 20,
    "meta_batch_size": 20,
    "checkpoint_every": "3steps",
    "device": "cpu",
}
OWN = {"dictionary_size": 30, "probe_size": 20, "warmup_epochs": 1, "relabel_warmup_epochs": 1, "share": 1.0}
"""Given to the plugins that have such an option, so that a small run is a whole one."""

AT_MOST = 4
"""Kills of one run."""


class Killer:
    """Kills its process the n-th time that it comes to a place.

    Args:
        place: one of `PLACES`.
        count: n, from 1.
    """

    def __init__(self, place: str, count: int):
        self._place, self._left = place, count

    @hookimpl
    def observe_step(self, done: int, total: int) -> None:
        """Come to the end of a step."""
        self.come("after a step")

    def come(self, place: str, before: Callable[[], object] = lambda: None) -> None:
        """Come to a place; if the process is to end there, do something first."""
        if place == self._place:
            self._left -= 1
            if not self._left:
                before()
                _end()

    def watch(self) -> None:
        """Put itself into the functions by which runs are saved."""
        from reweight_core.runs import checkpoint, folder

        save, write, rename, remove = checkpoint.save_file, checkpoint.write_json, Path.rename, shutil.rmtree

        def save_file(tensors: Any, path: Path) -> None:
            self.come("inside a tensor file", lambda: _half(save, tensors, path))
            save(tensors, path)

        def write_json(path: Path, value: Any) -> None:
            self.come("before the manifest")
            write(path, value)

        def renamed(path: Path, target: Path) -> Path:
            if path.name.endswith(".partial") and path.name.startswith(".step-"):
                self.come("before the rename")
                result = rename(path, target)
                self.come("after the rename")
                return result
            return rename(path, target)

        def rmtree(path: Path, *others: Any, **named: Any) -> None:
            if Path(path).name.startswith("step-"):
                self.come("while the oldest is removed", lambda: next(iter(Path(path).iterdir())).unlink())
            remove(path, *others, **named)

        def append(run: Path, metrics: Any) -> None:
            self.come("inside a line of metrics.jsonl", lambda: _half_a_line(run))
            appended(run, metrics)

        def samples(*given: Any) -> None:
            self.come("before the samples")
            written(*given)
            self.come("before the summary")

        appended, written = folder.append_metrics, folder.write_samples
        folder.append_metrics, folder.write_samples = append, samples
        checkpoint.save_file, checkpoint.write_json = save_file, write_json
        # for this process alone, which trains one run and ends
        Path.rename, shutil.rmtree = renamed, rmtree  # type: ignore[method-assign, assignment]


PLACES = {
    "after a step": 12,
    "inside a tensor file": 8,
    "before the manifest": 4,
    "before the rename": 4,
    "after the rename": 4,
    "while the oldest is removed": 2,
    "inside a line of metrics.jsonl": 3,
    "before the samples": 1,
    "before the summary": 1,
}
"""Where processes are killed, and how often a run comes there at least, about."""


def _end() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def _half(save: Callable[[Any, Path], None], tensors: Any, path: Path) -> None:
    save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _half_a_line(run: Path) -> None:
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"stage": "tr')


def train_here(subject: Mapping[str, Any], out: Path, place: str | None, count: int) -> None:
    """In a process of its own: begin a run, or go on with it, and be killed at a place."""
    import torch

    from reweight_core.training.resume import train_or_resume

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    killer = Killer(place or "", count)
    killer.watch()
    train_or_resume(configure(**subject, out=out), [killer])


def subjects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every method, component and loss with small options, by name, and some on a convolutional network."""
    plugins: list[tuple[str, dict[str, Any]]] = [(n, {"method": n}) for n in registry.names("method")]
    plugins += [(f"erm with {n}", {"method": "erm", "with": [n]}) for n in registry.names("component")]
    plugins += [(n, {"method": "erm", "loss": n}) for n in registry.names("loss")]
    plugins += [(f"{n} on resnet8", {"method": n, "model": "resnet8"}) for n in ("erm", "gdw", "fsr")]
    plugins.append(("gdw, saved at its end alone", {"method": "gdw", "checkpoint_every": "never"}))
    for name, plugin in plugins:
        known = known_options(RunConfig, {"data": "digits", **plugin})
        own = {option: value for option, value in OWN.items() if option in known}
        yield name, {**TINY, **plugin, **own}


@attrs.frozen
class Killed:
    """What became of a run that was killed: at which places, and what differs from the one that was left alone."""

    subject: str
    places: tuple[str, ...]
    differences: tuple[str, ...]


def results(run: Path) -> dict[str, Any]:
    """Return what a run ends with, times aside: bytes of its files, and metrics."""
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    files = [run / "samples.safetensors", newest / "model.safetensors", newest / "state.safetensors"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if not name.startswith("seconds")} for line in lines]
    return {path.name: path.read_bytes() for path in files} | {"metrics.jsonl": metrics}


def kill(subject: str, options: Mapping[str, Any], whole: Path, out: Path, seed: int, at_most: int) -> Killed:
    """Kill a run some times, at most; then let it come to its end, and compare."""
    draw, places = random.Random(f"{subject} {seed}"), []
    while len(places) < at_most:
        (place,) = draw.choices(list(PLACES), list(PLACES.values()))
        status = in_process(options, out, place, draw.randint(1, PLACES[place]))
        if status != -signal.SIGKILL:
            # it did not come there any more
            break
        places.append(place)
    status = in_process(options, out)
    if status:
        return Killed(subject, tuple(places), (f"ended with status {status}",))
    found, expected = results(out), results(whole)
    return Killed(subject, tuple(places), tuple(name for name in expected if found[name] != expected[name]))


def in_process(options: Mapping[str, Any], out: Path, place: str | None = None, count: int = 0) -> int:
    """Train in a new process; return its exit status, minus the number of the signal that ended it."""
    process = _CONTEXT.Process(target=train_here, args=(options, out, place, count))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


_CONTEXT = get_context("forkserver")
# a process begins in no time then
_CONTEXT.set_forkserver_preload(["reweight_core.training.resume"])


@click.command()
@click.option("--kills", default=100, show_default=True, help="How many processes to kill at least.")
@click.option("--seed", default=1, show_default=True, help="What the places follow from.")
@click.option("--only", default="", help="Subjects, separated by commas; all plugins if there is none.")
@click.option("--jobs", default=1, show_default=True, help="Runs at a time.")
def main(kills: int, seed: int, only: str, jobs: int) -> None:
    """Print a table of the kills; exit with 1 if a run differs from the one that was left alone."""
    named = dict(subjects())
    chosen = only.split(",") if only else list(named)
    done: list[Killed] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as threads:
        root = Path(folder)

        def leave_alone(name: str) -> None:
            status = in_process(named[name], root / "whole" / name)
            if status:
                raise click.ClickException(f"{name}: a run that was left alone ended with status {status}")

        def one(name: str, number: int) -> Killed:
            out = root / str(number) / name
            most = min(AT_MOST, kills)
            return kill(name, named[name], root / "whole" / name, out, seed + number, most)

        (root / "whole").mkdir()
        list(threads.map(leave_alone, chosen))
        number = 0
        while sum(len(killed.places) for killed in done) < kills:
            (root / str(number)).mkdir()
            for killed in threads.map(lambda name, n=number: one(name, n), chosen):
                done.append(killed)
                told = f"{', '.join(killed.places) or 'not killed'}: {', '.join(killed.differences) or 'same bits'}"
                click.echo(f"{killed.subject}: {told}", err=True)
            number += 1
    counts = Counter(place for killed in done for place in killed.places)
    bad = [killed for killed in done if killed.differences]
    click.echo("| killed | times |\n| --- | --- |")
    for place in PLACES:
        click.echo(f"| {place} | {counts[place]} |")
    click.echo(
        f"\n{len(done)} runs of {len(chosen)} plugins were killed {counts.total()} times (seed {seed}); ", nl=False
    )
    click.echo(f"{len(done) - len(bad)} ended with the bits of the run that was left alone, {len(bad)} did not")
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
