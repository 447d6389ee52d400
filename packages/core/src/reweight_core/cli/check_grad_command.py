"""``reweight check-grad``."""

import json
from typing import Any

import click
from rich import box
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.cli.output_options import json_option
from reweight_core.cli.plugin_options import plugin_command
from reweight_core.config.run_config import RunConfig


@plugin_command(RunConfig, name="check-grad")
@json_option
def command(config: Any, as_json: bool) -> None:
    """Compare the look-aheads on your model and data: error against double backward in fp32, time and memory.

    \b
    reweight check-grad --method l2rw --data digits --noise uniform:0.4
    """
    from reweight_core.measure.check_grad import check

    rows = check(config)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=box.SIMPLE)
    for title in ("look-ahead", "error of D'", "cosine", "same side", "ms", "memory MB"):
        table.add_column(title, justify="left" if title == "look-ahead" else "right")
    for row in rows:
        name = row["strategy"] if row["length"] is None else f"{row['strategy']} at {row['length']:g}"
        name += "" if row["precision"] == "fp32" else f" in {row['precision']}"
        if "error" in row:
            table.add_row(name, row["error"])
            continue
        peak = row["peak_bytes"]
        table.add_row(
            name,
            f"{row['relative_error']:.1e}",
            f"{row['cosine']:.6f}",
            f"{row['sign_agreement']:.3f}",
            f"{1000 * row['seconds_per_step']:.1f}",
            "-" if peak is None else f"{peak / 1e6:.0f}",
        )
    console().print(table)
