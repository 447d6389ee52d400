"""A plot of runs and sweeps over their epochs, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reweight_core import UserError, refuse_outputs, written_whole
from reweight_experiments.report import Spread

if TYPE_CHECKING:
    from reweight_experiments.side_by_side import Subject

ENDINGS = (".svg", ".png", ".pdf")

FIRST = {"test accuracy": "test_accuracy", "validation accuracy": "val_accuracy", "training loss": "train_loss"}
"""What the first panel may show: of these figures, by title, the first that there is."""

SECOND = {"AUROC of weights": "noise_auroc"}
"""What the second panel shows, if there is such a figure."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Colours that the colour-blind tell apart (Okabe and Ito, Color Universal Design, 2008)."""

DASHES = ("-", "--", ":", "-.")

Curve = Mapping[int, tuple[float, float]]
"""Mean and deviation by epoch."""


def check_file(file: Path) -> None:
    """Raise `UserError` if a plot cannot be drawn into a file: its name, its folder, or matplotlib is missing."""
    if file.suffix.lower() not in ENDINGS:
        raise UserError(f"--plot {file}: must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    refuse_outputs({"--plot": file})
    try:
        # imported only to learn, before anything is read, whether it is there and works
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"--plot {file}: {error}; install it with: pip install matplotlib") from error


def plot(subjects: Sequence[Subject], file: Path) -> None:
    """Draw a line for each run or cell: over seeds the mean, and a band of one sample standard deviation to each side.

    The panels are the test accuracy (where there is none the validation accuracy, or the loss), and where it is known
    the AUROC of weights.

    Args:
        subjects: runs, or seeds of cells.
        file: where to; the ending says as what.

    Raises:
        UserError: if no run has an epoch, or the file cannot be written.
    """
    check_file(file)
    from matplotlib.figure import Figure

    chosen = [(title, name) for title, name in FIRST.items() if any(map(bool, _curves(subjects, name)))][:1]
    chosen += [(title, name) for title, name in SECOND.items() if any(map(bool, _curves(subjects, name)))]
    if not chosen:
        raise UserError(f"--plot {file}: no run has finished an epoch")
    drawing = Figure(figsize=(5.5 * len(chosen), 3.8 + 0.2 * len(subjects)), layout="constrained")
    for panel, (title, name) in zip(drawing.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        for place, (subject, curve) in enumerate(zip(subjects, _curves(subjects, name), strict=True)):
            _draw(panel, place, subject.name, curve)
        panel.set(xlabel="epoch", ylabel=title)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    handles, names = drawing.axes[0].get_legend_handles_labels()
    drawing.legend(handles, names, loc="outside lower center", frameon=False)
    content = io.BytesIO()
    drawing.savefig(content, format=file.suffix.lower()[1:], dpi=150)
    try:
        with written_whole(file) as partial:
            partial.write_bytes(content.getvalue())
    except OSError as error:
        raise UserError(f"--plot {file}: {error}") from error


def _draw(panel: Any, place: int, name: str, curve: Curve) -> None:
    style = {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place // len(COLOURS) % len(DASHES)]}
    epochs, means = list(curve), [mean for mean, _ in curve.values()]
    # a single epoch would be no line
    panel.plot(epochs, means, label=name, marker="o" if len(epochs) == 1 else "", **style)
    if any(deviation for _, deviation in curve.values()):
        low, high = ([mean + side * deviation for mean, deviation in curve.values()] for side in (-1, 1))
        panel.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _curves(subjects: Sequence[Subject], figure: str) -> list[Curve]:
    return [_curve(subject, figure) for subject in subjects]


def _curve(subject: Subject, figure: str) -> Curve:
    """Return mean and deviation of a figure by epoch, over the runs that have got so far."""
    by_epoch: dict[int, list[float | None]] = {}
    for run in subject.runs:
        for epoch in run.epochs:
            by_epoch.setdefault(epoch["epoch"], []).append(epoch.get(figure))
    spreads = {epoch: Spread.of(values) for epoch, values in sorted(by_epoch.items())}
    return {epoch: (s.mean, s.deviation or 0.0) for epoch, s in spreads.items() if s.mean is not None}
