"""Gives the program bad input, and looks whether it refuses it in one line, with exit status 2.

python benchmarks/fuzz.py --examples 2000 --seed 1 --out fuzz
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import click

from fuzz_parts.arrays import ARRAYS
from fuzz_parts.commands import COMMANDS
from fuzz_parts.disks import DISKS
from fuzz_parts.examine import Outcome, examine
from fuzz_parts.images import IMAGES
from fuzz_parts.runs import SPOILT
from fuzz_parts.tables import TABLES

KINDS = {kind.name: kind for kind in (COMMANDS, TABLES, ARRAYS, IMAGES, SPOILT, DISKS)}


@click.command()
@click.option("--examples", type=click.IntRange(1), default=200, show_default=True, help="Examples of each kind.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="What the examples follow from.")
@click.option("--kind", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="Only this kind; again for more.")
@click.option("--out", type=Path, required=True, help="Folder of report.md, and of the examples with problems.")
def main(examples: int, seed: int, kinds: tuple[str, ...], out: Path) -> None:
    """Draw examples of each kind of input, run the program on them, and count how it ends.

    A problem is an exception, a hang, memory that is taken before it is estimated, an error that is not one line, or an
    exit status that does not fit. The exit status is 1 if there is any.
    """
    # torch tells of every version of its own
    warnings.simplefilter("ignore")
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Outcome] = {}
    for name in kinds or KINDS:
        started = time.perf_counter()
        found[name] = examine(KINDS[name], examples, seed, out)
        click.echo(f"{name}: {time.perf_counter() - started:.0f} s", err=True)
        (out / "report.md").write_text(report(found), encoding="utf-8", errors="backslashreplace")
    click.echo(report(found).encode(errors="backslashreplace").decode())
    sys.exit(1 if any(outcome.problems for outcome in found.values()) else 0)


def report(found: dict[str, Outcome]) -> str:
    """Return the counts as a table, and the problems with what reproduces them."""
    rows = [
        "| kind of input | commands | refused (2) | ran (0) | diverged (1) | problems |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, outcome in found.items():
        counts = outcome.counts
        rows.append(
            f"| {name} | {sum(counts.values())} | {counts['refused']} | {counts['ran']} | {counts['ended']} "
            f"| {counts['problem']} |"
        )
    problems = [f"- {name}: {text}" for name, outcome in found.items() for text in outcome.problems.values()]
    return "\n".join([*rows, "", *problems]) + "\n"


if __name__ == "__main__":
    main()
