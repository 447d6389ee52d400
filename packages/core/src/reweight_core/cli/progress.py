"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.plugins.hookspecs import hookimpl


class Progress:
    """Observes a run; use it as a context manager around the run."""

    def __init__(self) -> None:
        self._console = console()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("epoch 1", total=None)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._bar.disable:
            # a bar that was never shown may still print an empty line
            self._bar.stop()

    @hookimpl
    def observe_step(self, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=total)

    @hookimpl
    def observe_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Describe the epoch: on the bar, or where there is none in a line of its own."""
        text = f"epoch {metrics['epoch']}  loss {metrics['train_loss']:.3f}"
        if metrics["meta_loss"] is not None:
            text += f"  meta {metrics['meta_loss']:.3f}"
        if metrics["val_accuracy"] is not None:
            text += f"  val {metrics['val_accuracy']:.4f}"
        if metrics["test_accuracy"] is not None:
            text += f"  test {metrics['test_accuracy']:.4f}"
        if self._bar.disable:
            print(text, flush=True)
        else:
            self._bar.update(self._task, description=text)


def summary_table(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the result of a run."""
    table = Table(box=box.SIMPLE, show_header=False)
    if summary["test_accuracy"] is None:
        table.add_row("test accuracy", "none: there is no test set (--test-from none)")
    else:
        which = "last epoch" if summary["network"] == "last" else f"best epoch, {summary['network_epoch']}"
        table.add_row(f"test accuracy ({which})", f"{summary['test_accuracy']:.4f}")
        if _are_unbalanced(summary["test_classes"]["support"]):
            table.add_row("balanced test accuracy", f"{summary['test_balanced_accuracy']:.4f}")
            table.add_row("macro-F1 on the test set", f"{summary['test_macro_f1']:.4f}")
        table.add_row("test accuracy (mean of last 5)", f"{summary['test_accuracy_mean5']:.4f}")
    if summary.get("final_test_accuracy") is not None:
        table.add_row("test accuracy (final network)", f"{summary['final_test_accuracy']:.4f}")
    if summary["val_accuracy"] is not None:
        table.add_row("validation accuracy", f"{summary['val_accuracy']:.4f}")
        table.add_row(
            f"best on validation (epoch {summary['best_epoch']})",
            f"{summary['best_val_accuracy']:.4f}"
            + ("" if summary["best_test_accuracy"] is None else f", test {summary['best_test_accuracy']:.4f}"),
        )
    if summary["stopped_early"]:
        table.add_row("stopped early (--patience)", f"after epoch {summary['stopped_epoch']}")
    if summary["noise_auroc"] is not None:
        table.add_row("wrong labels found by weight (AUROC)", f"{summary['noise_auroc']:.4f}")
    table.add_row("time", f"{summary['seconds']:.1f} s ({1000 * summary['seconds_per_step']:.2f} ms a step)")
    table.add_row("run", str(folder))
    out = console()
    out.print(table)
    for found in summary["health"]:
        out.print(f"{found['problem']} (epoch {found['epoch']}): {found['message']}", soft_wrap=True)
    if summary["test_accuracy"] is not None:
        out.print(f"test again with: reweight eval {folder}", soft_wrap=True)


def _are_unbalanced(support: Sequence[int]) -> bool:
    """Whether one of the classes has more than twice as many examples as another."""
    return max(support) > 2 * min(support)
