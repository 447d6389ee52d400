"""``reweight bench``."""

import json

import click
from rich import box
from rich.console import Console
from rich.table import Table

from reweight_core.errors import UserError, nearest


@click.command(name="bench")
@click.option("--methods", default="erm,l2rw,mwnet,gdw", show_default=True, help="Methods, separated by commas.")
@click.option(
    "--strategies", default="double,jvp,fd,head", show_default=True, help="Look-aheads of those that look ahead."
)
@click.option("--model", default="resnet32", show_default=True, help="Network, as for train.")
@click.option("--image", default="3x32x32", show_default=True, help="Channels, height and width of the images.")
@click.option("--classes", default=10, show_default=True, help="Number of classes.")
@click.option("--batch-size", default=100, show_default=True, help="Training batch size n.")
@click.option("--meta-batch-size", default=100, show_default=True, help="Meta batch size m.")
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
@click.option("--repetitions", default=20, show_default=True, help="Timed steps of each cell.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    methods: str,
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
    from reweight_core.config.options import Owner, options_of
    from reweight_core.engine.lookahead import STRATEGIES
    from reweight_core.machine.device import resolve_device
    from reweight_core.measure import bench
    from reweight_core.plugins import registry

    shape = tuple(int(part) for part in image.split("x") if part.isdigit())
    if len(shape) != 3:
        raise UserError(f"--image {image}: must be CHANNELSxHEIGHTxWIDTH, e.g. 3x32x32")
    for name in strategies.split(","):
        if name not in STRATEGIES:
            raise UserError(f"--strategies {name}: must be among {', '.join(STRATEGIES)}")
    values = {name.replace("-", "_"): value for name, _, value in (text.partition("=") for text in options)}
    setting = bench.Setting(
        model, shape, classes, batch_size, meta_batch_size, device, precision, channels_last, memory, values
    )
    known = {
        item.name
        for name in methods.split(",")
        for item in options_of(Owner(name, registry.find("method", name).config))
    }
    for name in values:
        if name not in known:
            raise UserError(f"--set {name}: no method of --methods has this option{nearest(name, known)}")
    on_gpu = resolve_device(device).type == "cuda"
    if graph == "on" and not on_gpu:
        raise UserError("--graph on: steps are recorded on a CUDA GPU only; use --graph off")
    if precision == "tf32" and not on_gpu:
        raise UserError("--precision tf32: only CUDA GPUs have it; use --precision fp32")
    graphs = {"both": (False, True) if on_gpu else (False,), "on": (True,), "off": (False,)}[graph]
    cells = [
        bench.Cell(method, strategy, graphed)
        for method in methods.split(",")
        for strategy in (strategies.split(",") if registry.find("method", method).looks_ahead == "network" else [None])
        for graphed in graphs
    ]
    rows = bench.run(setting, cells, repetitions)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=box.SIMPLE)
    for title in ("method", "look-ahead", "graph", "ms a step", "x plain", "floor", "x erm", "memory MB", "x plain"):
        table.add_column(title, justify="left" if title in ("method", "look-ahead", "graph") else "right")
    memory_of_plain = rows[0]["peak_bytes"]
    for row in rows:
        peak = row["peak_bytes"]
        table.add_row(
            row["method"],
            row["strategy"] or "-",
            "yes" if row["graph"] else "no",
            f"{1000 * row['seconds_per_step']:.1f}",
            f"{row['ratio_to_plain']:.2f}",
            "-" if row["floor"] is None else f"{row['floor']:.2f}",
            "-" if row["ratio_to_erm"] is None else f"{row['ratio_to_erm']:.2f}",
            "-" if peak is None else f"{peak / 1e6:.0f}",
            "-" if peak is None or not memory_of_plain else f"{peak / memory_of_plain:.2f}",
        )
    Console(markup=False, emoji=False, highlight=False).print(table)
