"""What a person sees of a run: what it is, a progress bar on a terminal or plain lines, a table at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from reweight_core.cli.console import console
from reweight_core.plugins.hookspecs import hookimpl

STEPS_TO_MEASURE = 20
"""Steps whose time says something of those that follow."""


class Pace:
    """Says when a log should have another line: a minute after the last one, in long trainings more rarely."""

    def __init__(self) -> None:
        self._began = self._said = time.perf_counter()

    def said(self) -> None:
        """Note that there is a line now."""
        self._said = time.perf_counter()

    def is_due(self) -> bool:
        """Whether nothing was said for so long: a minute, or a twentieth of the whole time where that is more."""
        now = time.perf_counter()
        return now - self._said >= max(60, (now - self._began) / 20)


class Progress:
    """Observes a run; use it as a context manager around the run.

    On a terminal it is a bar; elsewhere a line an epoch, and in a long epoch one now and then (`Pace`).

    Args:
        quiet: whether to print nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._pace = quiet, Pace()
        self._console = console()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("epoch 1", total=None)
        self._began, self._begun_at, self._told_memory = 0.0, 0, False
        self._done = self._total = 0
        self._uses_gpu = False

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._bar.disable:
            # a bar that was never shown may still print an empty line
            self._bar.stop()

    @hookimpl
    def begin_run(self, folder: Path) -> None:
        """Say what is trained on what."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._uses_gpu = config["device"] != "cpu"
        self._print(description(config))

    @hookimpl
    def observe_step(self, done: int, total: int) -> None:
        """Move the bar; where there is none, say now and then how far the run is."""
        if not self._total:
            # a run's first step sets up much that no other needs; a resumed run has steps behind it
            self._began, self._begun_at = time.perf_counter(), done
        self._done, self._total = done, total
        self._bar.update(self._task, completed=done, total=total)
        if self._bar.disable and not self._quiet and self._pace.is_due():
            self._print(f"step {done:,} of {total:,}{self._left()}")

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
            self._print(f"{text}{self._left()}")
        else:
            self._bar.update(self._task, description=text)
            if not self._told_memory and (left := self._left()):
                self._print(left.strip())

    def _left(self) -> str:
        """Say how long the rest will take, tests after every epoch included; the first time also the memory so far."""
        taken, left = self._done - self._begun_at, self._total - self._done
        if taken < STEPS_TO_MEASURE or not left:
            return ""
        text = f"  {duration((time.perf_counter() - self._began) * left / taken)} left"
        if self._told_memory:
            return text
        self._told_memory = True
        # what only prints the end of a run needs no torch
        import torch

        from reweight_core.machine.meters import peak_memory

        memory = peak_memory(torch.device("cuda" if self._uses_gpu else "cpu"))
        return text if memory is None else f"{text}, {memory / 1e9:.1f} GB of memory"

    def _print(self, text: str) -> None:
        if self._quiet:
            return
        self._pace.said()
        if self._bar.disable:
            print(text, flush=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def description(config: Mapping[str, Any]) -> str:
    """Return one line on a run from its config.json: network and parameters, device, examples, classes."""
    data = config["data"]
    inside = f" ({data['trusted_size']:,} of them trusted)" if data["trusted_size"] else ""
    beside = f" and {data['meta_size']:,} trusted" if data["meta_size"] else ""
    return (
        f"{config['options']['model']}, {config['parameters']:,} parameters, {config['device']}; "
        f"{data['train_size']:,} training{inside}{beside} examples, {data['classes']:,} classes"
    )


def duration(seconds: float) -> str:
    """Return a time as whole seconds, minutes or hours."""
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 100 * length or unit == "h":
            break
    return f"{max(1, round(seconds / length))} {unit}"


def show_result(summary: Mapping[str, Any], folder: Path, quiet: bool = False, as_json: bool = False) -> None:
    """Print the result of a run: as a table, in one line, or as JSON (what summary.json holds, and the ``run``)."""
    if as_json:
        click.echo(json.dumps({"run": str(folder), **summary}, indent=2))
    elif quiet:
        click.echo(f"{folder}: {in_one_line(summary)}")
    else:
        summary_table(summary, folder)


def in_one_line(summary: Mapping[str, Any]) -> str:
    """Return the accuracy on the test set, or where there is none on the validation set."""
    for part, words in (("test", "test accuracy"), ("val", "validation accuracy")):
        if summary[f"{part}_accuracy"] is not None:
            return f"{words} {summary[f'{part}_accuracy']:.4f}"
    return "finished"


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
