"""``reweight inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich import box
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.cli.output_options import json_option
from reweight_core.cli.plugin_options import plugin_command
from reweight_core.cli.run_argument import a_run
from reweight_core.config.resolve import configure
from reweight_core.config.run_config import DataConfig
from reweight_core.errors import UserError

if TYPE_CHECKING:
    from reweight_core.data.prepare import PreparedData


@plugin_command(DataConfig, name="inspect")
@click.argument("run", type=Path, required=False)
@click.option(
    "--classes",
    is_flag=True,
    help="Show what the examples of each class weighed in the finished run RUN, at their last visit and on average.",
)
@json_option
def command(config: Any, run: Path | None, classes: bool, as_json: bool) -> None:
    """Show what the data of a run would be, without training; or what the classes weighed in a finished run.

    \b
    reweight inspect --data cifar10-lt --imb 0.01 --noise uniform:0.4
    reweight inspect RUN --classes
    """
    if run is not None or classes:
        _inspect_run(config, run, classes, as_json)
        return
    from reweight_core.config.load_data import load_data

    description = describe(load_data(config))
    if as_json:
        click.echo(json.dumps(description, indent=2))
    else:
        _print(description)


def _inspect_run(config: Any, run: Path | None, classes: bool, as_json: bool) -> None:
    if run is None or not classes:
        raise UserError("the weights of classes are those of a run: reweight inspect RUN --classes")
    if config != configure(DataConfig):
        raise UserError(f"{run}: a run has its own data; leave their options out")
    from reweight_core.runs.class_weights import class_weights

    found = class_weights(a_run(run))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(box=box.SIMPLE)
    table.add_column("class")
    for title in ("examples", "last weight", "mean weight", "effective examples"):
        table.add_column(title, justify="right")
    columns = (found[name] for name in ("classes", "examples", "last_weights", "mean_weights", "effective_examples"))
    for name, examples, last, mean, effective in zip(*columns, strict=True):
        table.add_row(name, str(examples), f"{last:.4g}", f"{mean:.4g}", f"{effective:.1f}")
    console().print(table)


def describe(data: PreparedData) -> dict[str, Any]:
    """Describe prepared data as JSON values; counts by true class and the noise are null where it is unknown."""
    classes = len(data.dataset.classes)

    def counts(labels: np.ndarray) -> list[int]:
        return np.bincount(labels, minlength=classes).tolist()

    known = bool((data.true_labels >= 0).all())
    transition = data.transition()
    return {
        "classes": list(data.dataset.classes),
        "train_size": len(data.train),
        "train_counts": counts(data.true_labels) if known else None,
        "observed_counts": counts(data.train.labels),
        "noise_rate": data.noise_rate,
        "transition": None if transition is None else transition.tolist(),
        "meta_counts": counts(data.meta.labels) if data.meta else None,
        "val_counts": counts(data.val.labels) if data.val else None,
        "test_size": len(data.test) if data.test else 0,
        "input_shape": list(data.dataset.input_shape),
        "fingerprint": data.fingerprint,
    }


def _print(description: dict[str, Any]) -> None:
    out = console()
    table = Table(box=box.SIMPLE)
    table.add_column("class")
    columns = {
        "train": "train_counts",
        "observed as": "observed_counts",
        "meta": "meta_counts",
        "val": "val_counts",
    }
    shown = {title: description[key] for title, key in columns.items() if description[key] is not None}
    for title in shown:
        table.add_column(title, justify="right")
    for index, name in enumerate(description["classes"]):
        table.add_row(name, *(str(values[index]) for values in shown.values()))
    out.print(table)
    rate = description["noise_rate"]
    out.print(f"training examples  {description['train_size']}")
    out.print(f"test examples      {description['test_size']}")
    out.print(f"wrong labels       {'unknown' if rate is None else f'{rate:.4f}'}")
    out.print(f"fingerprint        {description['fingerprint']}", soft_wrap=True)
    if description["transition"] is not None and rate:
        grid = Table(title="observed label by true label", box=box.SIMPLE)
        grid.add_column("")
        for name in description["classes"]:
            grid.add_column(name, justify="right")
        for name, row in zip(description["classes"], description["transition"], strict=True):
            grid.add_row(name, *(f"{value:.2f}" for value in row))
        if len(description["classes"]) <= 12:
            out.print(grid)
