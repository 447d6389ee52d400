"""FSR and plain training with and without MixUp and re-labelling, on digits with wrong labels and no clean set.

python benchmarks/fsr_components.py --seeds 5
"""

import json
import statistics
import tempfile
from pathlib import Path

import click

from reweight_core import configure, train

COMPONENTS: tuple[tuple[str, ...], ...] = ((), ("mixup",), ("relabel",), ("mixup", "relabel"))


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


@click.command()
@click.option("--seeds", default=5, help="Runs of each row, with seeds 0, 1, ...")
@click.option("--noise", default="uniform:0.4", help="As for reweight train.")
def main(seeds: int, noise: str) -> None:
    """Print Markdown tables: accuracy of the last epoch, and what the dictionary and the weights were like."""
    rows, purities = [], []
    for method in ("erm", "fsr"):
        for components in COMPONENTS:
            accuracy, auroc, zeros, lowest = [], [], [], []
            purity_by_epoch: list[list[float]] = []
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:
                    options = {"data": "digits", "noise": noise, "meta_size": 0, "seed": seed, "with": components}
                    if method == "fsr":
                        options |= {"dictionary_size": 200, "probe_size": 100}
                    run = train(configure(method=method, out=Path(folder) / "run", device="cpu", **options))
                    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
                accuracy.append(lines[-1]["test_accuracy"])
                auroc.append(run.summary["noise_auroc"])
                zeros.append(lines[-1]["zero_weight_ratio"])
                if method == "fsr":
                    purity = [line["dictionary_purity"] for line in lines]
                    purity_by_epoch.append(purity)
                    lowest.append(min(purity[len(purity) // 2 :]))
            name = " + ".join([method, *components])
            row = [name, spread(accuracy), f"{statistics.mean(auroc):.3f}", f"{statistics.mean(zeros):.2f}"]
            rows.append([*row, f"{min(lowest):.3f}" if lowest else "-"])
            if purity_by_epoch:
                means = [statistics.mean(values) for values in zip(*purity_by_epoch, strict=True)]
                step = max(1, len(means) // 10)
                purities.append([name, *(f"{value:.2f}" for value in means[step - 1 :: step])])
    print("| run | test accuracy | AUROC of mean weight | share of zero weights | lowest purity, second half |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(f"\n| purity after | {' | '.join(f'{10 * (i + 1)} %' for i in range(len(purities[0]) - 1))} |")
    print("| --- |" + " --- |" * (len(purities[0]) - 1))
    for row in purities:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
