"""Damages checkpoints at random, goes on from what is left, and compares with a run that was left alone.

python benchmarks/damaged_checkpoints.py --folders 200 --seed 1
"""

from __future__ import annotations

import random
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import NoReturn

import chaos
import click
import torch

from reweight_core import UserError, configure, hookimpl, resume, train

KINDS = ("truncated", "a bit flipped", "missing", "of another checkpoint", "of another run")


class Stop:
    """Ends a run at a step, as a machine does that is switched off."""

    @hookimpl
    def observe_step(self, done: int, total: int) -> None:
        """Stop after the second checkpoint."""
        if done == 8:
            raise KeyboardInterrupt


def damage(run: Path, other: Path, draw: random.Random) -> list[str]:
    """Damage one to three files of a run's checkpoints; return how."""
    kinds = []
    for _ in range(draw.randint(1, 3)):
        file = draw.choice(sorted(path for path in (run / "checkpoints").rglob("*") if path.is_file()))
        kind = draw.choice(KINDS)
        kinds.append(kind)
        content = bytearray(file.read_bytes())
        if kind == "truncated":
            file.write_bytes(content[: draw.randrange(len(content))] if content else b"")
        elif kind == "a bit flipped" and content:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            file.write_bytes(content)
        elif kind == "missing":
            file.unlink()
        elif kind == "of another checkpoint":
            source = draw.choice([path for path in (run / "checkpoints").iterdir() if path != file.parent])
            if (source / file.name).exists():
                shutil.copy(source / file.name, file)
        elif kind == "of another run":
            shutil.rmtree(file.parent)
            shutil.copytree(other / "checkpoints" / file.parent.name, file.parent)
    return kinds


def outcome(run: Path, whole: Path) -> str:
    """Go on with a run, and say how that ended."""
    try:
        resume(run)
    except UserError as error:
        return "refused in one line" if len(str(error).splitlines()) == 1 else f"problem: {error!r}"
    except Exception as error:
        return f"problem: {error!r}"
    found, expected = chaos.results(run), chaos.results(whole)
    different = [name for name in expected if found[name] != expected[name]]
    return f"problem: other bits in {', '.join(different)}" if different else "went on to the same bits"


@click.command()
@click.option("--folders", default=200, show_default=True, help="How many folders to damage.")
@click.option("--seed", default=1, show_default=True, help="What the damage follows from.")
def main(folders: int, seed: int) -> None:
    """Print a table of the outcomes; exit with 1 if there is a problem."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    draw, counts, damaged = random.Random(seed), Counter[str](), Counter[str]()
    options = dict(chaos.subjects())["gdw"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train(configure(**options, out=root / "whole"))
        for name, more in (("interrupted", {}), ("other", {"seed": 1})):
            try:
                train(configure(**options | more, out=root / name), [Stop()])
            except KeyboardInterrupt:
                continue
            _never()
        for number in range(folders):
            run = root / str(number)
            shutil.copytree(root / "interrupted", run)
            kinds = damage(run, root / "other", draw)
            damaged.update(kinds)
            ended = outcome(run, root / "whole")
            counts[ended.partition(":")[0]] += 1
            if ended.startswith("problem"):
                click.echo(f"folder {number} ({', '.join(kinds)}): {ended}", err=True)
            shutil.rmtree(run)
    click.echo("| damage | files |\n| --- | --- |")
    for kind in KINDS:
        click.echo(f"| {kind} | {damaged[kind]} |")
    click.echo(f"\n{folders} folders, seed {seed}: " + ", ".join(f"{n} {ended}" for ended, n in sorted(counts.items())))
    if counts["problem"]:
        raise SystemExit(1)


def _never() -> NoReturn:
    raise AssertionError("the run was to be stopped")


if __name__ == "__main__":
    main()
