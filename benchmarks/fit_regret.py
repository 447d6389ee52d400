"""What `reweight fit` loses against the best single way to train, in hindsight, and gains over the two simplest.

python benchmarks/fit_regret.py --out regret --jobs 2
"""

import csv
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import attrs
import click
import numpy as np
import torch
from PIL import Image
from sklearn import datasets

from reweight_core import UserError, configure, load_data, train, write_json
from reweight_fit import fit
from reweight_fit.candidates import DEFAULT, NETWORKS, PLAIN, TRUSTED, Facts, candidates_for
from reweight_fit.fitting import LEAST_PLAIN
from reweight_fit.search import Way
from reweight_fit.trials import config_of

Table = tuple[np.ndarray, np.ndarray]

TABLES: dict[str, Callable[[], Table]] = {
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "breast_cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "five": lambda: datasets.make_classification(
        2000, 40, n_informative=10, n_redundant=5, n_classes=5, class_sep=1.5, flip_y=0, random_state=1
    ),
    "blobs": lambda: datasets.make_blobs(1200, 30, centers=12, cluster_std=6.5, random_state=3),
    "rare": lambda: datasets.make_classification(
        1500, 20, n_informative=8, n_clusters_per_class=3, weights=[0.85, 0.15], flip_y=0, random_state=2
    ),
    "forest": lambda: datasets.make_classification(
        4000,
        54,
        n_informative=12,
        n_redundant=6,
        n_classes=7,
        n_clusters_per_class=3,
        class_sep=1.4,
        weights=[0.36, 0.3, 0.12, 0.08, 0.06, 0.04, 0.04],
        flip_y=0,
        random_state=0,
    ),
}
"""Made data are those of scikit-learn; ``forest`` has the shape and the class shares of Covertype, about."""

UNBALANCED = ("rare", "forest")
"""Judged by balanced accuracy."""

IMAGES = "cifar16"
"""16x16 images of CIFAR-10, 250 of each class for training and 100 for testing, for a small network."""

NOISES = {"none": None, "uniform .4": "uniform:0.4", "model .4": "model:0.4", "instance .3": "instance:0.3"}

TRUSTED_SIZES = (0, 20, 100)


@attrs.frozen
class Cell:
    """A setting, and a seed."""

    data: str
    noise: str
    trusted: int
    seed: int

    @property
    def file(self) -> str:
        """Name of its result."""
        return f"{self.data}-{self.noise.replace(' ', '')}-{self.trusted}-{self.seed}.json"

    def options(self, root: Path) -> dict[str, Any]:
        """Return its options of ``reweight train``."""
        found: dict[str, Any] = {"data_root": root / self.data, "meta_size": self.trusted, "seed": self.seed}
        if NOISES[self.noise] is not None:
            found["noise"] = NOISES[self.noise]
        if self.data == IMAGES:
            return found | {"data": "folder", "model": "lenet", "epochs": 20, "lr": 0.02}
        return found | {"data": "csv", "test_from": "split:0.25"}

    @property
    def figure(self) -> str:
        """What it is judged by."""
        return "balanced_accuracy" if self.data in UNBALANCED else "accuracy"


@click.command()
@click.option("--out", type=Path, required=True, help="Folder of the data and results; finished cells are kept.")
@click.option("--seeds", default="1,2,3,4,5", show_default=True, help="Seeds, separated by commas.")
@click.option("--data", default=",".join(TABLES), show_default=True, help="Data, separated by commas.")
@click.option("--images", type=Path, help="CIFAR-10 in class folders below train/ and test/, for --data cifar16.")
@click.option("--jobs", default=1, show_default=True, help="Cells at a time, each on one thread.")
def main(out: Path, seeds: str, data: str, images: Path | None, jobs: int) -> None:
    """Run what is missing, and print the tables as Markdown."""
    names = data.split(",")
    if len(seeds.split(",")) < 2:
        raise click.UsageError("--seeds: give two or more, for a deviation")
    for name in names:
        _write_images(images, out / "data" / name) if name == IMAGES else _write_table(name, out / "data" / name)
    cells = [
        Cell(name, noise, trusted, int(seed))
        for seed in seeds.split(",")
        for trusted in TRUSTED_SIZES
        for noise in NOISES
        for name in names
    ]
    (out / "cells").mkdir(exist_ok=True)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as processes:
        tasks = [processes.submit(_finished, cell, out) for cell in cells if not (out / "cells" / cell.file).exists()]
        for number, task in enumerate(tasks, 1):
            click.echo(f"{number} of {len(tasks)}: {task.result()}", err=True)
    _print([(cell, json.loads((out / "cells" / cell.file).read_text(encoding="utf-8"))) for cell in cells])


def _write_table(name: str, folder: Path) -> None:
    features, labels = TABLES[name]()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.csv", "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["label", *(f"f{i}" for i in range(features.shape[1]))])
        lines.writerows([f"c{y}", *(f"{v:.6g}" for v in x)] for x, y in zip(features, labels, strict=True))


def _write_images(images: Path | None, folder: Path) -> None:
    if images is None:
        raise click.UsageError("--data cifar16 needs --images")
    for part, count in (("train", 250), ("test", 100)):
        for of_class in sorted(images.glob(f"{part}/*/")):
            (folder / part / of_class.name).mkdir(parents=True, exist_ok=True)
            for file in sorted(of_class.iterdir())[:count]:
                small = Image.open(file).resize((16, 16), Image.Resampling.BILINEAR)
                small.save(folder / part / of_class.name / f"{file.stem}.png")


def _finished(cell: Cell, out: Path) -> str:
    """Run a cell: the search, and every candidate on its own."""
    # a cell has one thread, and what else the machine does is not to count
    time.perf_counter = time.process_time
    warnings.simplefilter("ignore")
    options = cell.options(out / "data")
    prepared = load_data(configure(**options))
    facts = Facts(prepared, options, configure(**options).model)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        plain = train(configure(**options, method="erm", out=Path(folder) / "plain"))
        plain_seconds, begun = time.perf_counter() - begun, time.perf_counter()
        # without planted examples, so that it trains on what the single ways do
        fitted = fit(Path(folder) / "fit", plant=0, **options)
        seconds = time.perf_counter() - begun - fitted.run.summary["seconds"]
        figure = f"test_{cell.figure}"
        winner = fitted.report.winner
        result: dict[str, Any] = {
            "fit": fitted.run.summary[figure],
            "winner": [winner.name, winner.network, winner.length],
            "times_plain": seconds / max(plain_seconds, LEAST_PLAIN),
            "single": {PLAIN: plain.summary[figure]},
        }
        networks = {PLAIN: facts.networks(), TRUSTED: facts.trusted_networks()}
        for candidate in candidates_for(None, facts):
            # the others with that which the search took for all
            for network in networks.get(candidate.name, [NETWORKS[winner.network]]):
                is_named = candidate.name in networks and network != DEFAULT
                name = f"{candidate.name}, {network.name}" if is_named else candidate.name
                config = config_of(Way(candidate.name, network.name), options, prepared, out=Path(folder) / name)
                if name not in result["single"]:
                    try:
                        result["single"][name] = train(config).summary[figure]
                    except UserError:
                        # a training that diverges
                        result["single"][name] = 0.0
    write_json(out / "cells" / cell.file, result)
    return f"{cell.file}: fit {result['fit']:.3f} ({winner.name}), plain {result['single'][PLAIN]:.3f}"


def _print(results: Sequence[tuple[Cell, Mapping[str, Any]]]) -> None:
    """Print a row for every setting, and what follows from all."""
    settings: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for cell, result in results:
        settings.setdefault((cell.data, cell.noise, cell.trusted), []).append(result)
    click.echo("| data | noise | trusted | `fit` | plain | trusted alone | best single way | regret | foreseen |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    regrets, foreseen, behind = [], [], []
    for (data, noise, trusted), runs in sorted(settings.items()):
        # for classes that are unbalanced with one seed alone, some ways have no mean
        common = [name for name in runs[0]["single"] if all(name in run["single"] for run in runs)]
        means = {name: statistics.mean(run["single"][name] for run in runs) for name in common}
        best = max(means, key=lambda name: means[name])
        fits = [run["fit"] for run in runs]
        deviation = statistics.stdev(fits)
        regret = means[best] - statistics.mean(fits)
        regrets.append(regret)
        # the best of many means of few seeds is better than its mean over all seeds would be
        others = [_best_without(number, runs, common) for number in range(len(runs))]
        known = [run["single"][name] for run, name in zip(runs, others, strict=True)]
        foreseen.append(statistics.mean(known) - statistics.mean(fits))
        # of very small tables the default network is the linear one
        trusted_alone = means.get(TRUSTED, means.get(f"{TRUSTED}, linear"))
        behind.append(max(means[PLAIN], trusted_alone or 0.0) - statistics.mean(fits) > deviation)
        alone = "-" if trusted_alone is None else f"{trusted_alone:.3f}"
        click.echo(
            f"| {data} | {noise} | {trusted} | {statistics.mean(fits):.3f} ± {deviation:.3f} | {means[PLAIN]:.3f} | "
            f"{alone} | {best} {means[best]:.3f} | {regret:+.3f} | {foreseen[-1]:+.3f} |"
        )
    times = [run["times_plain"] for runs in settings.values() for run in runs]
    click.echo(f"\nMean regret over {len(regrets)} settings: {statistics.mean(regrets):.4f}")
    click.echo(f"Against the way that is best for the other seeds: {statistics.mean(foreseen):.4f}")
    click.echo(f"More than a deviation behind plain training or the trusted examples alone: {sum(behind)}")
    click.echo(f"Time of the search in plain trainings, which count {LEAST_PLAIN:.0f} seconds at least:")
    click.echo(f"mean {statistics.mean(times):.1f}, at most {max(times):.1f}")


def _best_without(number: int, runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Return the way that is best for all seeds but one."""
    others = [run["single"] for i, run in enumerate(runs) if i != number]
    return max(names, key=lambda name: statistics.mean(single[name] for single in others))


if __name__ == "__main__":
    main()
