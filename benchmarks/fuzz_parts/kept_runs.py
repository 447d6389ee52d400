"""Small finished runs, made once, which the examples copy."""

from __future__ import annotations

import random
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz_parts.examine import inside
from reweight_audit.auditing import audit
from reweight_audit.files import write_audit
from reweight_core import configure, hookimpl, train, write_json
from reweight_experiments.sweep import run_sweep
from reweight_fit.fitting import fit

RUNS = ("table", "weighted", "images")


def write_table(folder: Path, rows: int = 30) -> None:
    """Write train.csv and test.csv with two features and two classes."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(0)
    for part in ("train", "test"):
        lines = [f"{numbers.random():.3f},{numbers.random():.3f},{'xy'[row % 2]}" for row in range(rows)]
        (folder / f"{part}.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")


def write_images(folder: Path, size: int = 8, count: int = 6) -> None:
    """Write train/ and test/ with small images of two classes."""
    numbers = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = numbers.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")


@cache
def kept_run(name: str) -> Path:
    """Return the folder of a finished run, whose data lie in the folder above it.

    Args:
        name: ``table``: plain training on features, audited; ``weighted``: learned weights, a validation set, planted
            and trusted examples; ``images``: image files; ``unfinished``: the first epoch of two; ``sweep`` and
            ``fit``: not a run, but the folder of these commands.
    """
    _made.append(tempfile.TemporaryDirectory(prefix="fuzz-runs-"))
    folder = Path(_made[-1].name)
    options: dict[str, object] = {"epochs": 2, "checkpoint_every": "1epochs", "model": "linear"}
    if name == "images":
        write_images(folder / "photos")
        options |= {"data": "folder", "data_root": folder / "photos", "meta_size": 0}
    else:
        write_table(folder / "table")
        options |= {"data": "csv", "data_root": folder / "table"}
    if name == "weighted":
        options |= {"method": "l2rw", "meta_size": 8, "plant": 4, "val_size": 4, "patience": 5}
    with inside(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = {"sweep": "run/erm-csv/seed-0"}.get(name, "run")
        if name == "fit":
            fit(out, budget="1x", candidates=["gce"], **options)
            return folder / "run"
        watching = [_Interrupting()] if name == "unfinished" else []
        with suppress(KeyboardInterrupt):
            train(configure(**options, out=folder / out), watching)
        if name == "sweep":
            # its one run is there, so that the table alone is made
            run_sweep("erm", "run", **options)
        elif name != "unfinished":
            audited(folder / "run")
    return folder / "run"


def audited(run: Path) -> None:
    """Write the files of an audit of a run, and what a person decided."""
    found = audit(run, out_of_sample="no")
    write_audit(run / "audit.json", found)
    made = [{"id": int(found.ids[0]), "decision": "keep"}, {"id": int(found.ids[1]), "decision": "drop"}]
    made.append({"id": int(found.ids[2]), "decision": "relabel", "label": found.classes[0]})
    write_json(run / "decisions.json", {"format": 1, "fingerprint": found.fingerprint, "decisions": made})


class _Interrupting:
    """Ends a run after its first epoch."""

    @hookimpl
    def observe_epoch(self, metrics: dict[str, object]) -> None:
        if metrics["epoch"] == 2:
            # after the checkpoint of the first
            raise KeyboardInterrupt


_made: list[tempfile.TemporaryDirectory[str]] = []
"""The folders of the runs, which are removed when the process ends."""
