"""``reweight apply``."""

from __future__ import annotations

from pathlib import Path

import click

from reweight_core import UserError

PROBABILITY = click.FloatRange(0, 1)


@click.command(name="apply")
@click.argument("audit", type=Path)
@click.option("--out", type=Path, metavar="FOLDER", help="Write corrected data to this new folder.")
@click.option("--weights", type=Path, metavar="FILE", help="Write weights for reweight train --weights: 1 less the "
              "probability of a wrong label, or what was decided.")  # fmt: skip
@click.option("--relabel", type=PROBABILITY, metavar="P", help="Give examples whose label is wrong with this "
              "probability, or a larger one, the suggested one.")  # fmt: skip
@click.option("--drop", type=PROBABILITY, metavar="P", help="Leave out those of this probability, or a larger one, "
              "that are not relabelled.  [default: 0.5, if nothing else is asked for]")  # fmt: skip
@click.option("--decisions", type=Path, metavar="FILE", help="What a person decided, exported from the report; it "
              "counts before both.")  # fmt: skip
def command(
    audit: Path,
    out: Path | None,
    weights: Path | None,
    relabel: float | None,
    drop: float | None,
    decisions: Path | None,
) -> None:
    """Make corrected data, or weights, of AUDIT: the folder of an audited run, or its audit.json.

    \b
    reweight apply runs/erm-folder-1 --out corrected
    reweight train --data folder --data-root corrected
    """
    if out is None and weights is None:
        raise UserError("give --out FOLDER for corrected data, or --weights FILE")
    from reweight_audit.applying import apply

    done = apply(audit, out=out, weights=weights, relabel=relabel, drop=drop, decisions=decisions)
    click.echo(
        f"{done.corrections.relabelled} examples have another label, {done.corrections.dropped} are left out "
        f"({done.corrections.decided.sum()} decided by a person)"
    )
    if done.options is not None:
        click.echo(f"train with: reweight train {done.options}")
    if weights is not None:
        click.echo(f"weights: {weights}; train with the options of the run and --weights {weights}")
