"""Values of options: good ones, and every kind of bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "3",
    "0.5",
    "1e-320",
    "1e308",
    str(10**9),
    str(10**12),
    str(10**30),
    "-" + str(10**30),
    "nan",
    "inf",
    "-inf",
)

TEXTS = (
    *("", " ", "-", "--", "none", "None", "true", "1,2", ",,", "a,b", "a:b", "::", "=", "x=", "%s", "{}", "[", "*"),
    *(
        "\u00fcn\u00ef",
        "a\nb",
        "a\rb",
        "\x1b[31mred",
        "\u202eabc",
        "\udcff",
        "1_0",
        "\u0663",
        "0x10",
        "1e3",
        "x" * 300,
        "x" * 5000,
    ),
    *(
        "<script>alert(1)</script>",
        "[/bold]",
        "[red]x",
        "=cmd",
        "uniform:0.4",
        "uniform:nan",
        "uniform:2",
        "flip:0.1",
        "matrix:file.txt",
        "1/5",
        "6/5",
        "0/0",
    ),
    *("split:0.5", "split:1e308", "split:-1", "module:factory", "os:getcwd", "os.path:join"),
)

PATHS = (
    *(
        "table",
        "missing",
        "empty",
        "file.txt",
        "loop",
        "binary.bin",
        "config.toml",
        "weights.csv",
        "run",
        "run/config.json",
    ),
    *(
        "file.txt/inside",
        "x" * 300,
        "x" * 5000,
        "missing/deep/er",
        ".",
        "new",
        "\u00fc",
        "a\nb",
        "-",
        "/proc/x",
    ),
)


def bad() -> st.SearchStrategy[str]:
    """Give any text."""
    short = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), max_size=8)
    return st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(PATHS), short)


def good(kind: type, choices: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    """Give what is likely to be taken for a value of a type."""
    if choices:
        return st.sampled_from(choices)
    if kind is int:
        return st.sampled_from(("1", "2", "3", "4", "10"))
    if kind is float:
        return st.sampled_from(("0.1", "0.5", "1", "1e-3", "2"))
    if kind is Path:
        return st.sampled_from(PATHS)
    return st.sampled_from(TEXTS)


def write_places(folder: Path) -> None:
    """Write what `PATHS` names, but for tables and runs."""
    (folder / "empty").mkdir()
    (folder / "file.txt").write_text("0.5 0.5\n0.5 0.5\n")
    (folder / "loop").symlink_to("loop")
    (folder / "binary.bin").write_bytes(bytes(range(256)))
    (folder / "config.toml").write_text("lr = 0.5\n[l2rw]\n")
    (folder / "weights.csv").write_text("id,weight\n0,0.5\n1,2\n")


def values_of(kind: type, choices: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Give values for an option, about half of them good."""
    return st.one_of(good(kind, choices), good(kind, choices), bad())
