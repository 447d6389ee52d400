"""What each saving of a look-ahead costs in accuracy: accuracy against the price of a step, as a table and a picture.

python benchmarks/savings.py --out savings --jobs 2 --plot savings.svg
"""

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import attrs
import click
import torch
from matplotlib.figure import Figure

from reweight_core import configure, train, write_json

Values = Mapping[str, Any]

ONE_BY_ONE: dict[str, Values] = {
    "jvp": {},
    "fd": {"lookahead": "fd"},
    "head": {"lookahead": "head"},
    "m/4": {"meta_batch_size": 25},
    "m/10": {"meta_batch_size": 10},
}

FOR_ALL: dict[str, Values] = ONE_BY_ONE | {
    "fd, m/4": ONE_BY_ONE["fd"] | ONE_BY_ONE["m/4"],
    "head, m/4": ONE_BY_ONE["head"] | ONE_BY_ONE["m/4"],
}

OFF, OF_FOUR, OF_TEN = {"virtual_step": "off"}, {"meta_every": 4}, {"meta_every": 10}

WITH_VIRTUAL_STEP: dict[str, Values] = FOR_ALL | {
    "off": OFF,
    "off, head": OFF | ONE_BY_ONE["head"],
    "off, m/4": OFF | ONE_BY_ONE["m/4"],
    "every 2": {"meta_every": 2},
    "every 4": OF_FOUR,
    "every 10": OF_TEN,
    "fd, every 4": ONE_BY_ONE["fd"] | OF_FOUR,
    "head, every 4": ONE_BY_ONE["head"] | OF_FOUR,
    "off, every 4": OFF | OF_FOUR,
    "off, every 10": OFF | OF_TEN,
    "off, m/4, every 4": OFF | ONE_BY_ONE["m/4"] | OF_FOUR,
}

SAVINGS: dict[str, Mapping[str, Values]] = {"gdw": WITH_VIRTUAL_STEP, "mwnet": WITH_VIRTUAL_STEP, "l2rw": FOR_ALL}
"""Of l2rw, whose weights begin at 0, the virtual step goes nowhere, and it looks ahead in every step."""

PLAIN = "erm"

NOISES = ("uniform:0.4", "flip:0.4", "instance:0.3")

COLOURS = {"gdw": "#0072B2", "mwnet": "#D55E00", "l2rw": "#009E73"}
"""The colour-blind tell them apart."""


@attrs.frozen
class Cell:
    """A run: a method with a saving, under a noise, from a seed."""

    method: str
    saving: str
    noise: str
    seed: int

    @property
    def file(self) -> str:
        """Name of its result."""
        saving = self.saving.replace(", ", "+").replace("/", "-").replace(" ", "")
        return f"{self.method}-{saving}-{self.noise.replace(':', '')}-{self.seed}.json"


@click.command()
@click.option("--out", type=Path, required=True, help="Folder of the results; finished runs are kept.")
@click.option("--seeds", default="1,2,3,4,5", show_default=True, help="Seeds, separated by commas.")
@click.option("--noises", default=",".join(NOISES), show_default=True, help="Noises, separated by commas.")
@click.option("--only", multiple=True, metavar="SAVING", help="One of the savings; again for another. Default: all.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of every run.")
@click.option("--jobs", default=1, show_default=True, help="Runs at a time, each on one thread.")
@click.option("--plot", type=Path, metavar="FILE", help="Draw the picture (.svg, .png, .pdf).")
def main(
    out: Path, seeds: str, noises: str, only: tuple[str, ...], options: tuple[str, ...], jobs: int, plot: Path | None
) -> None:
    """Run what is missing, and print the table as Markdown."""
    shared = {"data": "digits", "lookahead": "jvp"} | dict(text.split("=", 1) for text in options)
    savings = {method: [saving for saving in of if not only or saving in only] for method, of in SAVINGS.items()}
    subjects = [(PLAIN, "plain"), *((method, saving) for method, of in savings.items() for saving in of)]
    cells = [Cell(*of, noise, int(seed)) for seed in seeds.split(",") for noise in noises.split(",") for of in subjects]
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as processes:
        tasks = [processes.submit(_run, cell, shared, out) for cell in cells if not (out / cell.file).exists()]
        for number, task in enumerate(tasks, 1):
            click.echo(f"{number} of {len(tasks)}: {task.result()}", err=True)
    found: dict[tuple[str, str], dict[str, list[Values]]] = {}
    for cell in cells:
        result = json.loads((out / cell.file).read_text(encoding="utf-8"))
        found.setdefault((cell.method, cell.saving), {}).setdefault(cell.noise, []).append(result)
    points = {subject: _point(found[subject], found[(PLAIN, "plain")]) for subject in subjects}
    _print(points)
    if plot is not None:
        _draw(points, plot)


def _run(cell: Cell, shared: Values, out: Path) -> str:
    # a run has one thread, and what else the machine does is not to count
    time.perf_counter = time.process_time
    warnings.simplefilter("ignore")
    values = dict(shared) | SAVINGS.get(cell.method, {}).get(cell.saving, {})
    if cell.method == PLAIN:
        del values["lookahead"]
    with tempfile.TemporaryDirectory() as folder:
        config = configure(method=cell.method, noise=cell.noise, seed=cell.seed, out=Path(folder) / "run", **values)
        summary = train(config).summary
    write_json(out / cell.file, {name: summary[name] for name in ("test_accuracy", "seconds_per_step")})
    return f"{cell.file}: {summary['test_accuracy']:.3f}, {1000 * summary['seconds_per_step']:.2f} ms a step"


@attrs.frozen
class Point:
    """Accuracies of a saving by noise, one of each seed, and the time of its step, that of plain training being 1."""

    accuracies: Mapping[str, Sequence[float]]
    price: float


def _point(runs: Mapping[str, Sequence[Values]], plain: Mapping[str, Sequence[Values]]) -> Point:
    def seconds(of: Mapping[str, Sequence[Values]]) -> float:
        return statistics.median(run["seconds_per_step"] for of_noise in of.values() for run in of_noise)

    accuracies = {noise: [run["test_accuracy"] for run in of_noise] for noise, of_noise in runs.items()}
    return Point(accuracies, seconds(runs) / seconds(plain))


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _print(points: Mapping[tuple[str, str], Point]) -> None:
    noises = list(next(iter(points.values())).accuracies)
    click.echo(f"| method | saving | x plain | {' | '.join(noises)} |")
    click.echo("| --- " * (3 + len(noises)) + "|")
    for (method, saving), point in points.items():
        cells = [_cell(point.accuracies[noise]) for noise in noises]
        click.echo(f"| {method} | {saving} | {point.price:.2f} | {' | '.join(cells)} |")


def _cell(accuracies: Sequence[float]) -> str:
    mean, deviation = _mean(accuracies)
    return f"{mean:.3f}" if len(accuracies) == 1 else f"{mean:.3f} ± {deviation:.3f}"


def _draw(points: Mapping[tuple[str, str], Point], file: Path) -> None:
    """Draw a panel for each method and noise: every saving, named those to which none is better in both."""
    noises = list(next(iter(points.values())).accuracies)
    figure = Figure(figsize=(4.2 * len(SAVINGS), 3.2 * len(noises)), layout="constrained")
    panels = figure.subplots(len(noises), len(SAVINGS), sharex=True, sharey="row", squeeze=False)
    for row, noise in zip(panels, noises, strict=True):
        plain, _ = _mean(points[(PLAIN, "plain")].accuracies[noise])
        for panel, method in zip(row, SAVINGS, strict=True):
            of = {saving: point for (whose, saving), point in points.items() if whose == method}
            means = {saving: _mean(point.accuracies[noise]) for saving, point in of.items()}
            front, best = [], -1.0
            for saving in sorted(of, key=lambda name: (of[name].price, -means[name][0])):
                if means[saving][0] > best:
                    front.append(saving)
                    best = means[saving][0]
            panel.axhline(plain, color="grey", linestyle="--", linewidth=1)
            for saving, point in of.items():
                mean, deviation = means[saving]
                panel.errorbar(
                    point.price, mean, deviation, fmt="o", color=COLOURS[method],
                    alpha=1 if saving in front else 0.35, markersize=4, linewidth=0.8,
                )  # fmt: skip
            panel.plot([of[s].price for s in front], [means[s][0] for s in front], color=COLOURS[method], linewidth=0.8)
            for saving in front:
                panel.annotate(saving, (of[saving].price, means[saving][0]), (3, 4), textcoords="offset points", size=7)
            panel.set_title(f"{method}, {noise}", size=9)
    for panel in panels[-1]:
        panel.set_xlabel("time of a step / plain training's")
    for panel in panels[:, 0]:
        panel.set_ylabel("test accuracy")
    figure.savefig(file)


if __name__ == "__main__":
    main()
