"""``reweight eval``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.cli.output_options import json_option
from reweight_core.cli.run_argument import network_option, run_argument

if TYPE_CHECKING:
    from reweight_core.runs.checkpoint import Kept

MANY_CLASSES, SHOWN = 20, 10
"""Of more classes than this so many are shown: those of the smallest recall."""

SETS = {"test": "test", "val": "validation"}
FIGURES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "ece": "expected calibration error",
}


@click.command(name="eval")
@run_argument
@network_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@json_option
def command(run: Path, network: Kept, device: str, as_json: bool) -> None:
    """Test the newest checkpoint of the folder RUN on its test and its validation set."""
    from reweight_core.runs.evaluate import evaluate

    result = evaluate(run, device, network)
    if as_json:
        click.echo(json.dumps(result))
        return
    sets = [part for part in SETS if f"{part}_size" in result]
    for part in sets:
        click.echo(
            f"{SETS[part]} accuracy {result[f'{part}_accuracy']:.4f} on {result[f'{part}_size']} examples "
            f"({network} network, of epoch {result['epoch']}, step {result['step']})"
        )
    out = console()
    table = Table(box=box.SIMPLE)
    table.add_column("")
    for part in sets:
        table.add_column(SETS[part], justify="right")
    for figure, title in FIGURES.items():
        table.add_row(title, *(_text(result[f"{part}_{figure}"]) for part in sets))
    out.print(table)
    _print_classes(out, result, sets[0])


def _print_classes(out: Console, result: Mapping[str, Any], part: str) -> None:
    """Print a table of the classes in a set, with the class that each is most often taken for."""
    columns, confusion = result[f"{part}_classes"], result[f"{part}_confusion"]
    names, recall = columns["class"], columns["recall"]
    rows, title = list(range(len(names))), f"classes of the {SETS[part]} set"
    if len(names) > MANY_CLASSES:
        # a class without examples has no recall
        known = [row for row in rows if recall[row] is not None]
        rows = sorted(known, key=lambda row: recall[row])[:SHOWN]
        title = f"the {len(rows)} of {len(names)} {title} with the smallest recall"
    table = Table(box=box.SIMPLE)
    table.add_column("class", overflow="fold")
    for name in ("examples", "recall", "precision"):
        table.add_column(name, justify="right")
    table.add_column("most often taken for", overflow="fold")
    for row in rows:
        wrong = [0 if column == row else count for column, count in enumerate(confusion[row])]
        most = max(wrong)
        taken_for = f"{names[wrong.index(most)]} ({most})" if most else ""
        figures = (_text(columns[name][row]) for name in ("recall", "precision"))
        table.add_row(names[row], str(columns["support"][row]), *figures, taken_for)
    out.print(f"{title}:")
    out.print(table)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
