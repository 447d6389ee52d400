"""``reweight bench``."""

import json
from typing import Any

import click
from rich import box
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.cli.output_options import json_option
from reweight_core.config.options import options_of
from reweight_core.config.resolve import owner_of
from reweight_core.errors import UserError, nearest
from reweight_core.plugins import registry


@click.command(name="bench")
@click.option("--methods", help="Methods, separated by commas.  [default: all that are installed]")
@click.option(
    "--strategies", default="double,jvp,fd,head", show_default=True, help="Look-aheads of those that look ahead."
)
@click.option("--model", default="resnet32", show_default=True, help="Network, as for train.")
@click.option("--image", default="3x32x32", show_default=True, help="Channels, height and width of the images.")
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="Number of classes.")
@click.option("--batch-size", type=click.IntRange(2), default=100, show_default=True, help="Training batch size n.")
@click.option("--meta-batch-size", type=click.IntRange(2), default=100, show_default=True, help="Meta batch size m.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32", show_default=True)
@click.option("--channels-last/--no-channels-last", default=True, show_default=True)
@click.option(
    "--graph",
    type=click.Choice(["both", "on", "off"]),
    default="both",
    show_default=True,
    help="Steps as CUDA graphs, one by one, or both (one by one alone without a GPU).",
)
@click.option("--memory", type=click.Choice(["shared", "lean"]), default="shared", show_default=True)
@click.option(
    "--set", "options", multiple=True, metavar="NAME=VALUE", help="An option of a method, e.g. probe=separate."
)
@click.option("--repetitions", type=click.IntRange(1), default=20, show_default=True, help="Timed steps of each.")
@json_option
def command(
    methods: str | None,
    strategies: str,
    model: str,
    image: str,
    classes: int,
    batch_size: int,
    meta_batch_size: int,
    device: str,
    precision: str,
    channels_last: bool,
    graph: str,
    memory: str,
    options: tuple[str, ...],
    repetitions: int,
    as_json: bool,
) -> None:
    """Measure what a step of each method costs, against plain PyTorch in the same run, on synthetic images."""
    chosen = _names(methods) if methods else list(registry.load_all("method"))
    lookaheads = _names(strategies)
    shape, values = _shape(image), _values(options, chosen)

    # imports torch, which takes seconds; what is plainly wrong is told before
    from reweight_core.engine.lookahead import STRATEGIES
    from reweight_core.machine.device import resolve_device
    from reweight_core.measure import bench

    for name in lookaheads:
        if name not in STRATEGIES:
            raise UserError(f"--strategies {name}: must be among {', '.join(STRATEGIES)}{nearest(name, STRATEGIES)}")
    setting = bench.Setting(
        model, shape, classes, batch_size, meta_batch_size, device, precision, channels_last, memory, values
    )
    on_gpu = resolve_device(device).type == "cuda"
    if graph == "on" and not on_gpu:
        raise UserError("--graph on: steps are recorded on a CUDA GPU only; use --graph off")
    if precision == "tf32" and not on_gpu:
        raise UserError("--precision tf32: only CUDA GPUs have it; use --precision fp32")
    graphs = {"both": (False, True) if on_gpu else (False,), "on": (True,), "off": (False,)}[graph]
    subjects = [bench.Subject(bench.PLAIN, graph=True)] * (True in graphs)
    subjects += [
        bench.Subject(method, strategy, graphed)
        for method in chosen
        for strategy in (lookaheads if registry.find("method", method).looks_ahead == "network" else [None])
        for graphed in graphs
    ]
    rows = bench.run(setting, subjects, repetitions)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    _print(rows)


def _names(text: str) -> list[str]:
    """Read a list with commas."""
    return [name.strip() for name in text.split(",")]


def _shape(image: str) -> tuple[int, int, int]:
    """Read ``--image``."""
    parts = image.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"--image {image}: must be CHANNELSxHEIGHTxWIDTH, e.g. 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


def _values(options: tuple[str, ...], methods: list[str]) -> dict[str, Any]:
    """Read ``--set NAME=VALUE``, an option of at least one of the methods."""
    known = {item.name: item for name in methods for item in options_of(owner_of("method", name))}
    values: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals:
            raise UserError(f"--set {text}: must be NAME=VALUE, e.g. probe=separate")
        if name not in known:
            raise UserError(f"--set {text}: no method of --methods has the option '{name}'{nearest(name, known)}")
        values[name] = value == "true" if known[name].type is bool and value in ("true", "false") else value
    return values


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE)
    for title in ("method", "look-ahead", "graph", "ms a step", "x plain", "floor", "x erm", "memory MB", "x plain"):
        is_text = title in ("method", "look-ahead", "graph")
        table.add_column(title, justify="left" if is_text else "right", no_wrap=is_text)
    memory_of_plain, errors = rows[0]["peak_bytes"], []
    for row in rows:
        subject = row["method"], row["strategy"] or "-", "yes" if row["graph"] else "no"
        if "error" in row:
            name = " ".join(filter(None, (row["method"], row["strategy"])))
            errors.append(f"{name}{', recorded' if row['graph'] else ''}: {row['error']}")
            continue
        peak = row["peak_bytes"]
        table.add_row(
            *subject,
            f"{1000 * row['seconds_per_step']:.1f}",
            f"{row['ratio_to_plain']:.2f}",
            "-" if row["floor"] is None else f"{row['floor']:.2f}",
            "-" if row["ratio_to_erm"] is None else f"{row['ratio_to_erm']:.2f}",
            "-" if peak is None else f"{peak / 1e6:.0f}",
            "-" if peak is None or not memory_of_plain else f"{peak / memory_of_plain:.2f}",
        )
    console().print(table)
    for error in errors:
        console().print(error)
