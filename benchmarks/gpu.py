"""What is to be known of a GPU, from what matters most to least: replays, time and memory of a step, exactness, runs.

python benchmarks/gpu.py --minutes 25 --out gpu --data cifar10.tar
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from gpu_parts import tree
from gpu_parts.findings import Findings, problems
from gpu_parts.images import image_folder, make_tiny
from gpu_parts.parts import Part, run_parts
from gpu_parts.plan import Setting, plan
from gpu_parts.report import report
from gpu_parts.runs import keep_records, runs_of

SECONDS_TO_CLOSE = 12
"""Kept back at the end, to stop what runs and to write."""


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=25, show_default=True, help="Time to take.")
@click.option("--out", type=Path, required=True, help="Folder of results.json, report.md and runs.tar.gz.")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="CIFAR-10: train/CLASS/*.jpg and test/, or a tar or zip.",
)
@click.option("--work", type=Path, help="Folder for what is large: images, runs, logs.  [default: work in --out]")
@click.option("--jobs", type=click.IntRange(1), default=4, show_default=True, help="Runs at a time on the device.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Try the script: everything as small as it can be.")
def main(minutes: float, out: Path, data: Path | None, work: Path | None, jobs: int, device: str, tiny: bool) -> None:
    """Measure this machine in parts, and write what is known after each.

    Called again with the same --out it goes on: finished parts are kept, runs go on from their checkpoints if --work is
    still there, and what failed is tried again once the code has changed. Needs no installation of this tree.
    """
    deadline = time.monotonic() + 60 * minutes - SECONDS_TO_CLOSE
    # the batch systems' way to say that time is up
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    out, work = out.resolve(), (work or out / "work").resolve()
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    if tiny and data is None:
        data = make_tiny(work / "tiny.tar")
    images = None if data is None else image_folder(data.resolve(), work)
    parts = plan(Setting(device, tiny, work, images, jobs))
    findings = Findings(out, tree.digest())
    left = findings.left(parts)
    click.echo(f"{len(left)} of {len(parts)} parts to do; {out / 'report.md'} has what is known")

    def tell(part: Part, outcome: dict[str, Any]) -> None:
        if part.runs is not None:
            outcome["figures"] = runs_of(part.runs)
            keep_records(work / "runs", out / "runs.tar.gz")
        findings.note(part, outcome)
        write()
        click.echo(f"{outcome['seconds']:6.0f} s  {part.name}: {outcome['status']}")
        kept = outcome | {"kind": part.kind}
        for problem in problems(kept):
            click.echo(f"          {problem}")
        if part.kind == "machine" and outcome["status"] == "failed":
            raise click.ClickException(f"--device {device}: nothing can be tried ({problems(kept)[0]})")

    def write() -> None:
        names = [part.name for part in findings.left(parts)]
        partial = out / "report.md.partial"
        partial.write_text(report(findings.outcomes, names), encoding="utf-8")
        partial.replace(out / "report.md")

    write()
    with tempfile.TemporaryDirectory() as metadata:
        # decoded images are kept beside the rest, not in the user's cache
        environment = tree.surroundings(Path(metadata)) | {"XDG_CACHE_HOME": str(work / "cache")}
        at_once = max(1, (os.cpu_count() or 1) // (1 if tiny else 2))
        run_parts(left, deadline, at_once, environment, work / "logs", tell)
    wrong = [name for name, outcome in findings.outcomes.items() if problems(outcome)]
    if wrong:
        raise click.ClickException(f"something is wrong in {len(wrong)} parts: see {out / 'report.md'}")


if __name__ == "__main__":
    main()
