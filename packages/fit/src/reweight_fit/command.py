"""``reweight fit``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click

from reweight_core import (
    DeclaringCommand,
    Option,
    RunConfig,
    config_option,
    first_pass,
    in_one_line,
    json_option,
    known_options,
    over,
    quiet_option,
    read_file,
    take_given,
)
from reweight_fit.candidates import CANDIDATES, CHOSEN, refuse_chosen

_FROM_FILE = "reweight_fit.file"


class FitCommand(DeclaringCommand):
    """Has the options of train but those that say how to train."""

    def declared(self, ctx: click.Context, args: list[str]) -> Mapping[str, Option]:
        """Those of core and of the data; what a file says is kept for the callback."""
        given, _ = first_pass(ctx, args, ["data", "observe"], [config_option()])
        file = given.pop("config_file", None)
        ctx.meta[_FROM_FILE] = from_file = read_file(file, RunConfig, given) if file else {}
        refuse_chosen(from_file)
        known = known_options(RunConfig, over(given, from_file))
        return {name: item for name, item in known.items() if name not in CHOSEN}


@click.command(
    name="fit",
    cls=FitCommand,
    params=[config_option()],
    epilog="All other options are those of reweight train, but for what fit chooses: the method and its parts, the "
    "validation set.",
)
@click.option(
    "--budget",
    default="10x",
    show_default=True,
    metavar="Nx|Nm",
    help="What the search may take: so many times a plain training (of 2 seconds at least), or so many minutes of "
    "computing. The last training comes on top of it.",
)
@click.option(
    "--candidates",
    metavar="A,B",
    help="What is tried beside plain training and the trusted examples alone.  [default: all that can be used of "
    f"{', '.join(candidate.name for candidate in CANDIDATES)}]",
)
@click.option(
    "--judge-by",
    type=click.Choice(["auto", "accuracy", "balanced_accuracy"]),
    default="auto",
    show_default=True,
    help="Whether classes count as they are frequent, or all the same. auto: all the same with trusted "
    "examples, or where the largest has 3 times the examples of the smallest.",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Trials at a time, each a process.")
@click.option(
    "--out", type=Path, required=True, metavar="DIR", help="Folder of the run; trials are kept in DIR.search."
)
@quiet_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    budget: str,
    candidates: str | None,
    judge_by: Literal["auto", "accuracy", "balanced_accuracy"],
    jobs: int,
    config_file: Path | None,
    out: Path,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the method that suits the data, and train with it.

    Ways to train are tried, judged on trusted examples that they did not learn from, and the better ones get longer
    trainings. The best, of equals the simplest, is trained on everything: an ordinary run for eval and predict. Called
    again with the same --out, it keeps the trials that were made.

    \b
    reweight fit --data folder --data-root photos --image-size 32 --out best
    """
    # what computes needs torch, which help does not
    from reweight_fit.fitting import fit
    from reweight_fit.progress import SearchProgress, show

    given = over(take_given(ctx, options), ctx.meta[_FROM_FILE])
    names = None if candidates is None else [name.strip() for name in candidates.split(",")]
    with SearchProgress(jobs, quiet or as_json) as progress:
        fitted = fit(
            out,
            budget=budget,
            candidates=names,
            judge_by=judge_by,
            jobs=jobs,
            watcher=progress,
            observers=[progress.training],
            **given,
        )
    folder, summary = fitted.run.folder, fitted.run.summary
    if as_json:
        click.echo(json.dumps({"run": str(folder), **summary, "fit": fitted.report.as_json()}, indent=2))
        return
    if quiet:
        click.echo(f"{folder}: {fitted.report.winner.name}, {in_one_line(summary)}")
        return
    show(fitted.report)
    if summary["test_accuracy"] is not None:
        click.echo(f"test accuracy of the run: {summary['test_accuracy']:.4f}")
    click.echo(f"run: {folder}; predict with: reweight predict {folder} PATH")
