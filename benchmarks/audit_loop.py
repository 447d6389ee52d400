"""Training, audit, correction, and training again: test accuracy before and after, by what is done about wrong labels.

python benchmarks/audit_loop.py --seeds 1,2,3,4,5
"""

import statistics
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from reweight_audit.applying import apply
from reweight_audit.auditing import audit
from reweight_audit.files import NAME, write_audit
from reweight_audit.records import Audit
from reweight_core import configure, train, write_json

NOISES = ("uniform:0.4", "flip:0.4")
DECIDED = 100
TRAINING: Mapping[str, Any] = {"model": "mlp", "epochs": 100, "augment": "none"}
"""That of digits by default, for images in folders too."""

WAYS: Mapping[str, Mapping[str, float]] = {
    "drop from 0.5 on": {"drop": 0.5},
    "relabel from 0.5 on": {"relabel": 0.5},
    "relabel from 0.9 on, drop from 0.5 on": {"relabel": 0.9, "drop": 0.5},
}
PERSON = f"a person's {DECIDED} decisions"


@click.command()
@click.option("--seeds", default="1,2,3,4,5", show_default=True, help="Seeds, separated by commas.")
@click.option("--trusted", default="100,30", show_default=True, help="Numbers of trusted examples.")
def main(seeds: str, trusted: str) -> None:
    """Print the table as Markdown."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for noise in NOISES:
        for meta_size in map(int, trusted.split(",")):
            for seed in seeds.split(","):
                for way, accuracy in _accuracies(noise, meta_size, int(seed)).items():
                    found.setdefault((noise, meta_size), {}).setdefault(way, []).append(accuracy)
                click.echo(f"{noise}, {meta_size} trusted, seed {seed}: done", err=True)
    ways = list(next(iter(found.values())))
    click.echo(f"| noise | trusted | {' | '.join(ways)} |\n| --- | --- |{' --- |' * len(ways)}")
    for (noise, meta_size), of_ways in found.items():
        cells = [f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" for values in of_ways.values()]
        click.echo(f"| {noise} | {meta_size} | {' | '.join(cells)} |")


def _accuracies(noise: str, meta_size: int, seed: int) -> dict[str, float]:
    """Train on digits, and again with what each way makes of the audit."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        options = {"data": "digits", "noise": noise, "meta_size": meta_size, "seed": seed, "plant": meta_size // 3}
        before = train(configure(out=root / "run", **options, **TRAINING))
        found = audit(root / "run")
        write_audit(root / "run" / NAME, found)
        accuracies = {"before": before.summary["test_accuracy"]}
        decisions = _decided(found, root / "decisions.json")
        ways: dict[str, Mapping[str, Any]] = {**WAYS, PERSON: {"decisions": decisions}}
        ways[f"{PERSON}, drop from 0.5 on"] = {"decisions": decisions, "drop": 0.5}
        for number, (name, asked) in enumerate(ways.items()):
            data = root / f"corrected{number}"
            apply(root / "run", out=data, **asked)
            again = configure(
                out=root / f"again{number}", data="folder", data_root=data, cache=False, seed=seed, **TRAINING
            )
            accuracies[name] = train(again).summary["test_accuracy"]
        return accuracies


def _decided(audit: Audit, path: Path) -> Path:
    """Write what a person who knows the truth decides on the most suspicious examples."""
    made = []
    for i in audit.order()[:DECIDED]:
        is_wrong = audit.true[i] != audit.given[i]
        decision = {"decision": "relabel", "label": audit.classes[audit.true[i]]} if is_wrong else {"decision": "keep"}
        made.append({"id": int(audit.ids[i]), "name": audit.names[i], **decision})
    write_json(path, {"format": 1, "fingerprint": audit.fingerprint, "decisions": made})
    return path


if __name__ == "__main__":
    main()
