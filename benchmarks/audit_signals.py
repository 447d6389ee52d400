"""How well the signals of `reweight audit` find wrong labels, beside cleanlab on the same predictions.

python benchmarks/audit_signals.py --out signals --seeds 1,2,3,4,5        (needs cleanlab)
"""

import json
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from safetensors.numpy import load_file
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from reweight_audit.auditing import audit
from reweight_audit.files import values_of
from reweight_core import configure, train, write_json

METHODS: Mapping[str, Mapping[str, Any]] = {
    "erm": {"method": "erm"},
    "l2rw": {"method": "l2rw"},
    "mwnet": {"method": "mwnet"},
    "gdw": {"method": "gdw"},
    "fsr": {"method": "fsr", "with": ["mixup", "relabel"]},
}
NOISES = ("uniform:0.4", "flip:0.4")
SIGNALS = ("loss", "margin", "prediction", "weight", "out-of-sample")
FIGURES = ("auroc", "precision_1", "precision_5", "precision_wrong")
FOLDS = 5


@click.command()
@click.option("--out", type=Path, required=True, help="Folder of runs and results; finished ones are kept.")
@click.option("--seeds", default="1,2,3,4,5", show_default=True, help="Seeds, separated by commas.")
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Methods, separated by commas.")
@click.option("--images", type=Path, help="A folder of images for --data folder, in place of digits.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Further option of every run.")
@click.option("--planted", default=40, show_default=True, help="Examples that are planted, of 100 trusted ones.")
def main(out: Path, seeds: str, methods: str, images: Path | None, options: tuple[str, ...], planted: int) -> None:
    """Train, audit, and print the tables as Markdown."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data: dict[str, Any] = {"data": "digits"} if images is None else {"data": "folder", "data_root": images}
    data |= {"meta_size": 100, "plant": planted} | dict(text.split("=", 1) for text in options)
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for noise in NOISES:
        for method in methods.split(","):
            for seed in seeds.split(","):
                run = out / f"{method}-{noise.replace(':', '')}-{seed}"
                found.setdefault((noise, method), []).append(_result(run, data, method, noise, int(seed)))
                click.echo(f"{run.name}: done", err=True)
    _print(found)


def _result(run: Path, data: Mapping[str, Any], method: str, noise: str, seed: int) -> dict[str, Any]:
    """Return the figures of a run's signals, and those of cleanlab."""
    file = run.with_name(f"{run.name}.json")
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    if not (run / "summary.json").exists():
        train(configure(out=run, noise=noise, seed=seed, **METHODS[method], **data))
    result: dict[str, Any] = {}
    for how in ("no", "trusted", *([str(FOLDS)] if method == "erm" else [])):
        audited = audit(run, out_of_sample=how)
        content = values_of(audited)
        users = ~audited.planted
        wrong = (audited.true != audited.given)[users]
        result[how] = {
            "signals": {of["name"]: {"planted": of["auroc"], **of["known"]} for of in content["signals"]},
            "first": content["signals"][0]["name"],
            "share": content["wrong_of_all"],
            "wrong": float(wrong.mean()),
            "suggested": float((audited.suggested == audited.true)[users][wrong].mean()),
        }
        if how == str(FOLDS):
            result["cleanlab"] = _cleanlab(run, audited.given[users], users, wrong)
    write_json(file, result)
    return result


def _cleanlab(run: Path, labels: np.ndarray, users: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Return what cleanlab makes of the same predictions: its ranking, and the list of what it takes for wrong."""
    logits = load_file(run / f"audit-{FOLDS}.safetensors")["train"][users]
    probabilities = softmax(logits.astype(np.float64), axis=1)
    issues = find_label_issues(labels, probabilities)
    scores = get_label_quality_scores(labels, probabilities, method="self_confidence")
    order = np.argsort(scores, kind="stable")

    def precision(count: int) -> float:
        return float(wrong[order[: max(1, count)]].mean())

    return {
        "auroc": float(roc_auc_score(wrong, -scores)),
        "precision_1": precision(round(0.01 * len(wrong))),
        "precision_5": precision(round(0.05 * len(wrong))),
        "precision_wrong": precision(int(wrong.sum())),
        "listed_precision": float(wrong[issues].mean()),
        "listed_recall": float(wrong[issues].sum() / wrong.sum()),
    }


def _print(found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> None:
    click.echo(
        "| noise | run | signal | AUROC | worst 1 % | worst 5 % | as many as wrong | AUROC by planted examples |"
    )
    click.echo("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (noise, method), results in found.items():
        for how in results[0]:
            if how == "cleanlab":
                _row(noise, method, f"cleanlab, self-confidence, {FOLDS} folds", [r[how] for r in results])
                continue
            if how == "trusted" and (noise, method) != next(setting for setting in found if setting[0] == noise):
                # networks of the trusted examples do not know the method
                continue
            for signal in SIGNALS:
                # the others are the same as without
                if (signal == "out-of-sample") != (how == "no") and signal in results[0][how]["signals"]:
                    name = signal if how == "no" else f"{signal}, {'trusted' if how == 'trusted' else f'{how} folds'}"
                    _row(noise, method, name, [r[how]["signals"][signal] for r in results])
    click.echo(
        "\n| noise | run | first signal | its AUROC | best AUROC | wrong | estimated | in interval | suggested right |"
    )
    click.echo("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (noise, method), results in found.items():
        for how in ("no", "trusted"):
            of = [r[how] for r in results]
            first = [r["signals"][r["first"]]["auroc"] for r in of]
            best = [max(s["auroc"] for s in r["signals"].values()) for r in of]
            names = ", ".join(sorted({r["first"] for r in of}))
            held = sum(r["share"]["low"] <= r["wrong"] <= r["share"]["high"] for r in of)
            share, wrong = [r["share"]["value"] for r in of], [r["wrong"] for r in of]
            label = method if how == "no" else f"{method}, trusted"
            suggested = _mean([r["suggested"] for r in of])
            click.echo(
                f"| {noise} | {label} | {names} | {_mean(first)} | {_mean(best)} | {_mean(wrong)} | {_mean(share)} | "
                f"{held} of {len(of)} | {suggested} |"
            )
    for (noise, _), results in found.items():
        if "cleanlab" in results[0]:
            lists = [r["cleanlab"] for r in results]
            precision, recall = (_mean([of[f"listed_{name}"] for of in lists]) for name in ("precision", "recall"))
            click.echo(f"\ncleanlab's list, {noise}: precision {precision}, recall {recall}")


def _row(noise: str, method: str, signal: str, figures: Sequence[Mapping[str, float | None]]) -> None:
    columns = [_mean([of[name] for of in figures]) for name in FIGURES]
    planted = _mean([of["planted"] for of in figures]) if figures[0].get("planted") is not None else "-"
    click.echo(f"| {noise} | {method} | {signal} | {' | '.join(columns)} | {planted} |")


def _mean(values: Sequence[Any]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
