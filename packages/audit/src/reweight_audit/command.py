"""``reweight audit``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reweight_core import UserError, json_option, nearest, quiet_option, refuse_outputs, run_argument


@click.command(name="audit")
@run_argument
@click.option(
    "--out-of-sample",
    default="auto",
    show_default=True,
    metavar="HOW",
    help="Train further networks, none of which learns from the examples that it judges: trusted (on the trusted "
    "examples alone), a number of folds (as the run, each without a part of the training set), no, or auto: trusted "
    "where that takes less than a minute, or half of what the run took. They are kept in the run's folder.",
)
@click.option("--by", metavar="SIGNAL", help="Rank by this signal.  [default: the best for this run]")
@click.option("--worst", type=click.IntRange(0), default=20, show_default=True, help="Examples to show.")
@click.option("--class", "of_class", metavar="CLASS", help="Show those with this given label alone.")
@click.option("--csv", "csv_file", type=Path, metavar="FILE", help="Write every example, the most suspicious first.")
@click.option("--html", "html_file", type=Path, metavar="FILE", help="Write a report to look at and to decide in.")
@click.option("--label-studio", type=Path, metavar="FILE", help="Write tasks for Label Studio.")
@click.option("--fiftyone", type=Path, metavar="FILE", help="Write labels for FiftyOne.")
@json_option
@quiet_option
def command(
    run: Path,
    out_of_sample: str,
    by: str | None,
    worst: int,
    of_class: str | None,
    csv_file: Path | None,
    html_file: Path | None,
    label_studio: Path | None,
    fiftyone: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """List the training examples of the finished run RUN whose labels are probably wrong.

    What is found is kept in RUN/audit.json, from which reweight apply makes corrected data.

    \b
    reweight audit runs/erm-digits-1 --html report.html
    """
    refuse_outputs({"--csv": csv_file, "--html": html_file, "--label-studio": label_studio, "--fiftyone": fiftyone})

    from reweight_audit.audited_run import AuditedRun
    from reweight_audit.auditing import audit_of
    from reweight_audit.exports import write_export
    from reweight_audit.files import NAME, values_of, write_audit, write_csv
    from reweight_audit.html import thumbnails_of, write_report
    from reweight_audit.screen import sentences, show

    audited = AuditedRun.read(run)
    if of_class is not None and of_class not in audited.samples.classes:
        raise UserError(f"--class {of_class}: the run has no such class{nearest(of_class, audited.samples.classes)}")
    exports = [(kind, file) for kind, file in (("label-studio", label_studio), ("fiftyone", fiftyone)) if file]
    files = audited.image_files() if exports else []
    progress = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    found = audit_of(audited, out_of_sample, by, progress)
    write_audit(run / NAME, found)
    if csv_file is not None:
        write_csv(csv_file, found)
    if html_file is not None:
        write_report(html_file, found, run, thumbnails_of(audited.trained_on.train))
    for kind, file in exports:
        write_export(kind, file, found, files)
    if as_json:
        click.echo(json.dumps(values_of(found)))
    elif quiet:
        click.echo(sentences(found)[0])
    else:
        show(found, worst, of_class)
