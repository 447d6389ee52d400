"""The report: what failed first, then the goals, then the figures of every part, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gpu_parts.findings import problems

FLOOR_FACTOR = 1.1
"""How far above its floor a recorded step may be."""

GOAL_EPOCHS, GOAL_MINUTES = 80, 4

_OF_BENCH = (
    "floor: arithmetic of the method's passes over that of plain training; recorded: x floor: time of a recorded step "
    "over that of a recorded plain step, over the floor."
)
_OF_REPLAYS = (
    "difference: the largest of a number between training by single and by replayed steps; of equal runs: between two "
    "trainings by single steps; deterministic: as difference, with deterministic algorithms."
)

Outcomes = dict[str, dict[str, Any]]


def report(outcomes: Outcomes, left: Sequence[str]) -> str:
    """Return the whole report.

    Args:
        outcomes: of the parts so far, by name.
        left: names of the parts that are left to do.
    """
    lines = ["# On this machine", "", *_machine(outcomes), ""]
    stopped = [name for name, outcome in outcomes.items() if outcome["status"] == "stopped"]
    lines += [f"{len(outcomes) - len(stopped)} parts are finished, {len(left)} are left.", "", "## What failed", ""]
    wrong = [f"- {name}: {problem}" for name, outcome in outcomes.items() for problem in problems(outcome)]
    lines += wrong or ["Nothing so far."]
    for name, outcome in outcomes.items():
        if outcome["status"] == "failed":
            lines += ["", f"{name}:", "", *(f"    {line}" for line in outcome["error"].splitlines())]
    lines += ["", "## The goals", "", *goals(outcomes)]
    lines += ["", "## Replays against single steps", "", *_captures(outcomes)]
    for kind, table in (("bench", _bench), ("check-grad", _check_grad)):
        for name, outcome in _of_kind(outcomes, kind):
            if outcome["figures"]:
                lines += ["", f"## {name}", "", *table(outcome["figures"])]
    lines += ["", "## Runs", "", *_runs(outcomes)]
    if left:
        lines += ["", "## Left to do", "", *(f"- {name}" for name in left)]
    return "\n".join(lines) + "\n"


def _of_kind(outcomes: Outcomes, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, outcome) for name, outcome in outcomes.items() if outcome["kind"] == kind)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["Nothing yet."]
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]


def _device(outcomes: Outcomes) -> dict[str, Any] | None:
    return next((outcome["figures"] for _, outcome in _of_kind(outcomes, "machine")), None)


def _machine(outcomes: Outcomes) -> list[str]:
    figures = _device(outcomes)
    if not figures:
        return ["The device has not been looked at."]
    on = f"{figures['gpu']} ({figures['gigabytes']:.0f} GB, {figures['capability']})" if "gpu" in figures else "no GPU"
    versions = f"driver {figures['driver']}, CUDA {figures['cuda']}, cuDNN {figures.get('cudnn')}"
    return [
        f"{on}, {figures['processor']}; torch {figures['torch']}, {versions}, Python {figures['python']}; "
        f"{figures['plugins']} plugins found."
    ]


def goals(outcomes: Outcomes) -> list[str]:
    """Return a line for each goal: what was found, and whether it is reached."""
    return [*_beside_plain(outcomes), *_above_floors(outcomes), *_whole_run(outcomes)]


def _benches(outcomes: Outcomes) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, outcome in _of_kind(outcomes, "bench"):
        rows = [row for row in outcome["figures"] or () if "error" not in row]
        if rows:
            yield name, rows


def _beside_plain(outcomes: Outcomes) -> Iterator[str]:
    what = "A recorded step of gdw is no slower than one of a plain loop that is not recorded (ResNet-32)"
    found = [
        (name, min(row["ratio_to_plain"] for row in rows if row["method"] == "gdw" and row["graph"]))
        for name, rows in _benches(outcomes)
        if "resnet32" in name and any(row["method"] == "gdw" and row["graph"] for row in rows)
    ]
    if not found:
        yield f"- {what}: not measured."
    for name, ratio in found:
        yield f"- {what}: {_yes(ratio <= 1)}, {ratio:.2f} times its time ({name})."


def _above_floors(outcomes: Outcomes) -> Iterator[str]:
    what = f"Every recorded step is within {FLOOR_FACTOR} of its floor, beside a recorded plain step"
    measured = False
    for name, rows in _benches(outcomes):
        above = {_subject(row): row["ratio_to_floor"] for row in with_floors(rows) if row["ratio_to_floor"] is not None}
        if above:
            measured = True
            over = [f"{subject} {ratio:.2f}" for subject, ratio in above.items() if ratio > FLOOR_FACTOR]
            told = f"the largest is {max(above.values()):.2f}"
            yield f"- {what}: {_yes(not over)}, {', '.join(over) or told} ({name})."
    if not measured:
        yield f"- {what}: not measured."


def with_floors(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add ``ratio_to_floor`` to rows of ``bench``: time over that of a recorded plain step, over the floor.

    None for steps that are not recorded, and where there is no floor or no recorded plain step.
    """
    plain = [row["seconds_per_step"] for row in rows if row["method"] == "plain" and row["graph"]]

    def ratio(row: dict[str, Any]) -> float | None:
        if not plain or not row["graph"] or row["floor"] is None or row["method"] == "plain":
            return None
        return row["seconds_per_step"] / plain[0] / row["floor"]

    return [row | {"ratio_to_floor": ratio(row)} for row in rows]


def _whole_run(outcomes: Outcomes) -> Iterator[str]:
    what = f"A run of gdw of {GOAL_EPOCHS} epochs takes at most {GOAL_MINUTES} minutes"
    runs = [
        run
        for name, outcome in _of_kind(outcomes, "runs")
        if name == "runs: gdw, uniform"
        for run in outcome["figures"] or ()
        if run["epochs_done"] and run["model"] == "resnet32"
    ]
    if not runs:
        yield f"- {what}: not measured."
    for run in runs:
        minutes = run["seconds"] / run["epochs_done"] * GOAL_EPOCHS / 60
        yield f"- {what}: {_yes(minutes <= GOAL_MINUTES)}, {minutes:.1f} minutes by {run['epochs_done']} epochs."


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "**no**"


def _captures(outcomes: Outcomes) -> list[str]:
    rows = [row for _, outcome in _of_kind(outcomes, "capture") for row in outcome["figures"] or ()]
    measured = [
        [
            row["subject"],
            row["verdict"],
            str(row["replays"]),
            f"{row['difference']:.1e}",
            f"{row['noise']:.1e}",
            f"{row['deterministic_difference']:.1e}" if "deterministic_difference" in row else "-",
            " to ".join(f"{seconds:.1f}" for seconds in row["seconds"]),
        ]
        for row in rows
        if "noise" in row
    ]
    counts = {
        verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("equal", "within", "different", "error")
    }
    titles = ["what", "replays are", "replays", "difference", "of equal runs", "deterministic", "s, single to recorded"]
    lines = [f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items())}.", ""]
    device = _device(outcomes)
    if device and "gpu" not in device:
        lines += ["The device is no GPU: the replays are those of a stand-in, the recorder of the tests.", ""]
    return [*lines, *_table(titles, measured), "", _OF_REPLAYS]


def _subject(row: dict[str, Any]) -> str:
    return f"{row['method']} {row['strategy']}" if row["strategy"] else str(row["method"])


def _bench(rows: Sequence[dict[str, Any]]) -> list[str]:
    memory_of_plain = next((row["peak_bytes"] for row in rows if row["method"] == "plain"), None)
    cells = []
    for row in with_floors([row for row in rows if "error" not in row]):
        peak, floor, above = row["peak_bytes"], row["floor"], row["ratio_to_floor"]
        cells.append(
            [
                _subject(row),
                "yes" if row["graph"] else "no",
                f"{1000 * row['seconds_per_step']:.2f}",
                f"{row['ratio_to_plain']:.2f}",
                "-" if floor is None else f"{floor:.2f}",
                "-" if above is None else f"{above:.2f}",
                "-" if peak is None else f"{peak / 1e6:.0f}",
                "-" if peak is None or not memory_of_plain else f"{peak / memory_of_plain:.2f}",
            ]
        )
    titles = ["method", "recorded", "ms a step", "x plain", "floor", "recorded: x floor", "memory MB", "memory x plain"]
    return [*_table(titles, cells), "", _OF_BENCH]


def _check_grad(rows: Sequence[dict[str, Any]]) -> list[str]:
    cells = [
        [
            row["strategy"] if row["length"] is None else f"{row['strategy']} at {row['length']:g}",
            row["precision"],
            f"{row['relative_error']:.1e}",
            f"{row['cosine']:.6f}",
            f"{row['sign_agreement']:.3f}",
        ]
        for row in rows
        if "error" not in row
    ]
    return _table(["look-ahead", "precision", "error of D'", "cosine", "same side"], cells)


def _runs(outcomes: Outcomes) -> list[str]:
    cells = []
    for name, outcome in _of_kind(outcomes, "runs"):
        for run in outcome["figures"] or ():
            done = run["epochs_done"]
            cells.append(
                [
                    name.removeprefix("runs: "),
                    " + ".join([run["method"], *(run["with"] or ())]),
                    str(run["noise"] or "-"),
                    str(run["imb"] or "-"),
                    str(run["seed"]),
                    "finished" if run["finished"] else f"{done} epochs so far",
                    *(_figure(run.get(figure)) for figure in ("test_accuracy", "test_accuracy_mean5", "noise_auroc")),
                    f"{run['seconds'] / 60:.1f}",
                    f"{run['seconds'] / done:.2f}" if done else "-",
                    f"{run['precision']}, {run.get('lookahead') or '-'}",
                ]
            )
    titles = ["runs", "method", "noise", "imb", "seed", "", "test accuracy", "mean of last 5", "AUROC of weights"]
    return _table([*titles, "minutes", "s an epoch", "precision, look-ahead"], cells)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
