"""Sweeps in Python: methods by settings by seeds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reweight_core import UserError
from reweight_experiments.carry_out import Watcher, carry_out
from reweight_experiments.cells import Texts, as_arguments, axes_of, cells_of, check_whole_number, plan_runs
from reweight_experiments.devices import slots_on, take_devices
from reweight_experiments.report import CellResult, Report, Results, collect, keep
from reweight_experiments.slurm import Slurm, make_by_slurm

BALANCED = "balanced accuracy"
"""Title of a column that is left out where no result differs from the test accuracy by a point."""

COLUMNS = {
    "test accuracy": ("test_accuracy", 4),
    "mean of last 5": ("test_accuracy_mean5", 4),
    BALANCED: ("test_balanced_accuracy", 4),
    "AUROC of weights": ("noise_auroc", 4),
    "seconds": ("seconds", 1),
}
"""Columns of figures: title -> name of the figure, and its digits."""


def run_sweep(
    methods: Texts | None,
    out: Path | str,
    *,
    data: Texts | None = None,
    vary: Mapping[str, Texts] | None = None,
    config: Path | str | None = None,
    seed: int = 0,
    seeds: int = 1,
    jobs: int = 1,
    slurm: Slurm | None = None,
    watcher: Watcher | None = None,
    **options: Any,
) -> Results:
    """Train each method in each setting with several seeds, and make one table of it (``reweight sweep``).

    Called again with the same folder, it keeps finished runs and makes the others; called by several processes at once,
    on machines that share the folder, each makes a part of them. What fails is in `Results.errors`, and takes no other
    run with it; `Results.elsewhere` are runs that others had not finished when this process had nothing left to do.

    Args:
        methods: names, or a text with commas; None for the method of the file.
        out: folder of the runs and of the result table.
        data: names of datasets likewise; None for that of the file, or the default.
        vary: values of other options, by name: all combinations are run. None leaves an option out.
        config: a TOML file with options, which rank below all others.
        seed: seed of the first run of each setting.
        seeds: number of runs of each setting.
        jobs: number of runs at a time, each a process; with several GPUs at least one on each.
        slurm: jobs of Slurm that make the runs; None makes them here.
        watcher: is told how the runs get on.
        **options: options of ``reweight train`` (underscores) for the runs that have them; several ``device`` are
            GPUs that the runs are spread over.

    Raises:
        UserError: before the first run, for an option of any run that is wrong, or a folder that does not fit.
    """
    out, file, vary = Path(out), None if config is None else Path(config), vary or {}
    check_whole_number("--jobs", jobs, 1)
    axes = axes_of(methods, data, vary, file)
    if "method" not in axes:
        raise UserError("--methods A,B is missing: name the methods to compare")
    of_runs, devices = take_devices(options)
    runs = plan_runs(cells_of(axes, of_runs, file), seed, seeds, out)
    texts = {name: ",".join(values) for name, values in axes.items()}
    arguments = {
        "methods": texts.pop("method"),
        "data": texts.pop("data"),
        "vary": [f"{name}={values}" for name, values in texts.items()] or None,
        **options,
        **({"device": ",".join(devices)} if devices else {}),
        **{"config": file, "seed": seed, "seeds": seeds, "jobs": jobs, "out": out},
    }
    command = ["sweep", *as_arguments(arguments)]
    watcher = watcher or Watcher()
    if slurm is None:
        made = carry_out(runs, out, slots_on(devices, jobs), watcher)
    else:
        made = make_by_slurm(runs, out, command, slurm, watcher)
    with made as outcome:
        results = collect(runs, outcome)
        about = {"command": shlex.join(["reweight", *command])}
        return keep(out, sweep_report(results), results, about)


def sweep_report(results: Sequence[CellResult]) -> Report:
    """Return the table of a sweep."""
    labels = list(dict.fromkeys(name for result in results for name in result.cell.labels))
    unbalanced = any(map(_is_unbalanced, results))
    columns = {title: figure for title, figure in COLUMNS.items() if unbalanced or title != BALANCED}
    figures = ["n", *columns]
    rows = [
        [
            *(result.cell.labels.get(name, "-") for name in labels),
            str(result.finished),
            *(result.spreads[name].text(digits) for name, digits in columns.values()),
        ]
        for result in results
    ]
    heading = ["Test accuracy of the last epoch and of the last five; mean ± sample standard deviation over n seeds."]
    return Report(heading, [*labels, *figures], rows, [], unbroken=figures)


def _is_unbalanced(result: CellResult) -> bool:
    accuracy, balanced = (result.spreads[name].mean for name in ("test_accuracy", "test_balanced_accuracy"))
    return accuracy is not None and balanced is not None and abs(accuracy - balanced) >= 0.01
