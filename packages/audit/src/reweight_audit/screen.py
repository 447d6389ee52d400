"""What a person sees of an audit on a terminal."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.table import Table

from reweight_audit.records import Audit, Share
from reweight_core import console

MOST_CLASSES = 20
"""Classes with the largest shares of wrong labels that are shown."""


def show(audit: Audit, worst: int, of_class: str | None = None) -> None:
    """Print the most suspicious examples, the classes, and how good the signals are.

    Args:
        audit: what was found.
        worst: number of examples.
        of_class: given label of these; None for any.
    """
    screen = console()
    if worst:
        screen.print(_examples(audit, worst, of_class))
    screen.print(_classes(audit))
    if len(audit.classes) > MOST_CLASSES:
        screen.print(
            f"The {MOST_CLASSES} of {len(audit.classes)} given labels that are wrong most often; --json has all."
        )
    screen.print(_signals(audit))
    for line in sentences(audit):
        screen.print(line, soft_wrap=True, highlight=False)


def sentences(audit: Audit) -> list[str]:
    """Say in plain words how many labels are wrong, and what that rests on."""
    users, best = ~audit.planted, audit.signals[0]
    share = f"{audit.wrong_of_all.value:.1%}" if audit.calibrated is None else _percent(audit.wrong_of_all)
    found = [f"About {share} of {users.sum()} labels are wrong."]
    if (audit.true[users] >= 0).all():
        found[0] += f" By the true labels it is {(audit.true != audit.given)[users].mean():.1%}."
    text = f"Ranked by {best.name}: {best.meaning}."
    known = [signal for signal in audit.signals if signal.auroc is not None]
    if audit.calibrated is not None:
        text += f" Calibrated by {audit.calibrated}."
    else:
        text += " The probabilities are not calibrated: nothing tells how often such a label is wrong."
        text += (
            f" Known examples measure {known[0].name} (AUROC {known[0].auroc:.2f}): --by {known[0].name} is calibrated."
            if known
            else " With trusted examples, train --plant 20 or audit --out-of-sample trusted does."
        )
    inverted = [signal.name for signal in audit.signals if signal.auroc is not None and signal.auroc < 0.4]
    if inverted:
        text += f" Inverted in this run, so that it tells the opposite: {', '.join(inverted)}."
    return [*found, text]


def _examples(audit: Audit, worst: int, of_class: str | None) -> Table:
    table = Table(box=box.SIMPLE)
    for title in ("example", "given", "suggested"):
        table.add_column(title)
    table.add_column("wrong", justify="right")
    table.add_column(audit.signals[0].name, justify="right")
    chosen = [i for i in audit.order() if of_class in (None, audit.classes[audit.given[i]])]
    for i in chosen[:worst]:
        values = (f"{audit.probability[i]:.2f}", f"{audit.signals[0].values[i]:.3g}")
        table.add_row(
            _on_a_line(audit.names[i]),
            audit.classes[audit.given[i]],
            audit.classes[audit.suggested[i]],
            *values,
        )
    return table


def _on_a_line(name: str) -> str:
    """Return a name without what would break the line: a file may have any."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _classes(audit: Audit) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("given label")
    for title in ("examples", "wrong", "in 95 of 100 cases"):
        table.add_column(title, justify="right")
    table.add_column("mostly in fact")
    counts = np.bincount(audit.given[~audit.planted], minlength=len(audit.classes))
    shown = sorted(range(len(audit.classes)), key=lambda c: -audit.wrong[c].value)[:MOST_CLASSES]
    for c in shown:
        others = np.where(np.arange(len(audit.classes)) == c, 0, audit.matrix[:, c])
        mostly = f"{audit.classes[int(others.argmax())]} ({others.max():.0f})" if others.max() >= 1 else ""
        share = audit.wrong[c]
        interval = "-" if audit.calibrated is None else f"{share.low:.1%} to {share.high:.1%}"
        table.add_row(audit.classes[c], str(counts[c]), f"{share.value:.1%}", interval, mostly)
    return table


def _signals(audit: Audit) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("signal", no_wrap=True)
    table.add_column("AUROC, known examples", justify="right")
    known = any(signal.known for signal in audit.signals)
    for title in ("by true labels", "worst 1 %", "worst 5 %", "as many as wrong") if known else ():
        table.add_column(title, justify="right")
    for signal in audit.signals:
        figures = ["auroc", "precision_1", "precision_5", "precision_wrong"] if known else []
        of_known = [f"{signal.known[name]:.3f}" if name in signal.known else "-" for name in figures]
        table.add_row(signal.name, "-" if signal.auroc is None else f"{signal.auroc:.3f}", *of_known)
    return table


def _percent(share: Share) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
