"""What the runs of a sweep have come to, finished or not, read from their folders."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

OPTIONS = ("method", "with", "noise", "imb", "seed", "epochs", "model")
SUMMARY = ("test_accuracy", "test_accuracy_mean5", "noise_auroc", "health", "seconds")
SMALL = {".json", ".jsonl", ".csv", ".log", ".md"}


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """Return an object for each run of a sweep that has begun.

    Its options, the ``precision`` and the look-ahead taken, ``epochs_done``, ``test_accuracy`` so far, ``seconds`` of
    its epochs without the tests after them; of a finished run what its summary says, ``seconds`` of all of it.
    """
    return [_figures(path.parent) for path in sorted(folder.glob("*/seed-*/config.json"))]


def _figures(run: Path) -> dict[str, Any]:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    found = {name: config["options"].get(name) for name in OPTIONS}
    found |= {"precision": config.get("precision")}
    metrics, summary = run / "metrics.jsonl", run / "summary.json"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    # the last line of a run that was stopped may be cut
    epochs = [json.loads(line) for line in lines if line.endswith("}")]
    found |= {"epochs_done": len(epochs), "seconds": sum(epoch["seconds"] for epoch in epochs), "finished": False}
    if epochs:
        found |= {name: epochs[-1].get(name) for name in ("lookahead", "test_accuracy", "noise_auroc")}
        found["seconds_of_last_epoch"] = epochs[-1]["seconds"]
    if summary.exists():
        said = json.loads(summary.read_text(encoding="utf-8"))
        found |= {name: said.get(name) for name in SUMMARY} | {"finished": True, "summary": said}
    return found


def keep_records(folder: Path, file: Path) -> None:
    """Pack what is small of all runs below a folder, checkpoints left out, to carry it away in one file."""
    partial = file.with_name(f"{file.name}.partial")
    with tarfile.open(partial, "w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            if path.suffix in SMALL and path.is_file() and "checkpoints" not in path.parts:
                archive.add(path, path.relative_to(folder))
    partial.replace(file)
