"""The README's table: every method on digits with 40 % uniform label noise, one schedule, several seeds.

python benchmarks/digits_table.py --seeds 5
"""

import statistics
import tempfile
from pathlib import Path

import click

import reweight_core

ROWS = {
    "`erm` on clean labels": {"method": "erm"},
    "`erm`": {"method": "erm", "noise": "uniform:0.4"},
    "`random`": {"method": "random", "noise": "uniform:0.4"},
    "`clean-only` (the 100 clean examples)": {"method": "clean-only", "noise": "uniform:0.4"},
    "`l2rw`": {"method": "l2rw", "noise": "uniform:0.4"},
    "`mwnet`": {"method": "mwnet", "noise": "uniform:0.4"},
    "`gdw`": {"method": "gdw", "noise": "uniform:0.4"},
    "`erm --with mixup`, no clean examples": {
        "method": "erm",
        "noise": "uniform:0.4",
        "with": ["mixup"],
        "meta_size": 0,
    },
    "`fsr --with mixup --with relabel`, no clean examples": {
        "method": "fsr",
        "noise": "uniform:0.4",
        "with": ["mixup", "relabel"],
        "meta_size": 0,
    },
}


@click.command()
@click.option("--seeds", default=5, show_default=True, help="Runs of each row, with seeds 0, 1, ...")
def main(seeds: int) -> None:
    """Print the table as Markdown: test accuracy of the last epoch, and AUROC of the weights."""
    click.echo(f"| digits, uniform 0.4, n = {seeds} seeds | test accuracy | AUROC of weights |\n| --- | --- | --- |")
    for label, options in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            summaries = [
                reweight_core.train(
                    reweight_core.configure(**options, data="digits", seed=seed, out=Path(folder) / str(seed))
                ).summary
                for seed in range(seeds)
            ]
        accuracies = [summary["test_accuracy"] for summary in summaries]
        aurocs = [summary["noise_auroc"] for summary in summaries]
        click.echo(f"| {label} | {mean_and_deviation(accuracies)} | {mean_and_deviation(aurocs)} |")


def mean_and_deviation(values: list[float | None]) -> str:
    """Return mean and sample deviation, or a dash where there is no value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{statistics.mean(known):.3f} ± {deviation:.3f}"


if __name__ == "__main__":
    main()
