"""CSV files: of features, of weights, and what predict and score read."""

from __future__ import annotations

import shutil
from pathlib import Path

from hypothesis import strategies as st

from fuzz_parts.examine import Command, Draw, Kind
from fuzz_parts.kept_runs import kept_run

LABELS = (
    *(
        "x",
        "y",
        "0",
        "1",
        "01",
        " x",
        "x ",
        "X",
        "",
        "a b",
        "\u00fcn\u00ef",
        "a\nb",
        "<script>alert(1)</script>",
        "=cmd",
        "x,y",
    ),
    *(
        "\u0663",
        "\u00b2",
        "nan",
        "-1",
        '"',
        "'",
        "\u202ex",
        "\x1b[31m",
        "../x",
        "[/bold]",
        "9" * 5000,
        "x" * 300,
        "\ufeffx",
    ),
)
CELLS = (
    "0.5",
    "1",
    "-2",
    "",
    "nan",
    "inf",
    "1e300",
    "1e400",
    "1_0",
    "text",
    "0x10",
    "\u0663",
    "1,5",
    " 1 ",
    "1\x00",
    "1e-320",
    '"1',
    "'",
)
NAMES = ("a", "b", "label", "Label", "true_label", "id", "file", "", "a ", "\ufeffa", "class", "weight", "a\nb", "=x")
ENCODINGS = ("utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32")

MISTAKES = (
    *(
        "column",
        "another column",
        "labels",
        "few rows",
        "cell",
        "row",
        "separator",
        "line end",
        "end",
        "all",
        "encoding",
    ),
)


def table(draw: Draw, names: tuple[str, ...]) -> bytes:
    """Draw a table with about these columns, right but for some of many mistakes."""
    wrong = draw(st.sets(st.sampled_from(MISTAKES), max_size=2))
    columns = list(names)
    if "column" in wrong:
        columns[draw(st.integers(0, len(columns) - 1))] = draw(st.sampled_from(NAMES))
    if "another column" in wrong:
        columns.append(draw(st.sampled_from(NAMES)))
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=4)) if "labels" in wrong else ["x", "y"]
    rows = draw(st.sampled_from((12, 2, 1, 0))) if "few rows" in wrong else 30
    cells = [[_cell(name, row, labels) for name in columns] for row in range(rows)]
    if "cell" in wrong and cells:
        row = cells[draw(st.integers(0, rows - 1))]
        row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from((*CELLS, *LABELS)))
    if "row" in wrong and cells:
        row = cells[draw(st.integers(0, rows - 1))]
        row[:] = draw(st.sampled_from((row[:-1], [*row, "1"], [""], [])))
    separator = draw(st.sampled_from((";", "\t", "|", " "))) if "separator" in wrong else ","
    end = draw(st.sampled_from(("\r\n", "\r", "\n\n"))) if "line end" in wrong else "\n"
    quote = draw(st.integers(0, 3)) > 0
    text = end.join(separator.join(_quoted(cell) if quote else cell for cell in row) for row in [columns, *cells])
    text += draw(st.sampled_from(("", '"', "\x00", "\n" * 5, "x" * 200_000))) if "end" in wrong else end
    if "all" in wrong:
        text = draw(st.sampled_from(("", "\n", text.partition(end)[2], "\x00" * 100, '"' * 7, "a" * 200_000)))
    return text.encode(draw(st.sampled_from(ENCODINGS)) if "encoding" in wrong else "utf-8", "replace")


def _cell(name: str, row: int, labels: list[str]) -> str:
    if name in ("label", "true_label", "Label"):
        return labels[row % len(labels)]
    if name == "id":
        return str(row)
    return f"{(row * 37 % 11) / 7:.3f}"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(letter in cell for letter in ',"\n\r') else cell


def make(draw: Draw, folder: Path) -> list[Command]:
    """Write tables, and draw what reads them."""
    (folder / "table").mkdir()
    purpose = draw(st.sampled_from(("train", "train", "train", "predict", "score", "weights")))
    if purpose == "train":
        (folder / "table" / "train.csv").write_bytes(table(draw, ("a", "b", "label")))
        if draw(st.booleans()):
            part = draw(st.sampled_from(("test", "test", "test", "meta")))
            (folder / "table" / f"{part}.csv").write_bytes(table(draw, ("a", "b", "label")))
        more = ("--test-from", "split:0.2") if not (folder / "table" / "test.csv").exists() else ()
        more += draw(st.sampled_from(((), ("--meta-size", "2"), ("--noise", "uniform:0.4"))))
        options = ("--data", "csv", "--data-root", "table")
        train = ("train", *options, "--model", "linear", "--epochs", "1", "--out", "new", *more)
        if draw(st.integers(0, 4)) == 0:
            return [Command(("inspect", *options))]
        audit = ("audit", "new", "--html", "a.html", "--csv", "a.csv")
        return [Command(train), Command(("eval", "new"), follows=True), Command(audit, follows=True)]
    shutil.copytree(kept_run("table"), folder / "run")
    file = folder / "table" / "new.csv"
    if purpose == "weights":
        file.write_bytes(table(draw, ("id", "weight")))
        arguments = [
            "train",
            "--data",
            "csv",
            "--data-root",
            str(kept_run("table").parent / "table"),
            "--model",
            "linear",
        ]
        return [Command([*arguments, "--epochs", "1", "--out", "new", "--weights", "table/new.csv"])]
    file.write_bytes(table(draw, ("a", "b", "label") if purpose == "score" else ("a", "b")))
    return [Command([purpose, "run", "table/new.csv", *draw(st.sampled_from(((), ("--csv", "out.csv"), ("--json",))))])]


TABLES = Kind("tables (CSV)", make)
