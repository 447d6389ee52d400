"""Files of runs, sweeps and searches: damaged, missing, of another run, or of other types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzz_parts.damage import damaged
from fuzz_parts.examine import Command, Draw, Kind
from fuzz_parts.kept_runs import kept_run

OTHERS: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        3,
        1e308,
        10**30,
        float("nan"),
        "",
        "x",
        "../../x",
        "<script>",
        [],
        [1],
        {},
        {"a": 1},
        [[]],
        [None],
    ),
)
"""In place of a value of JSON."""

OF_A_RUN = (
    *(
        ("eval", "run"),
        ("eval", "run", "--network", "best"),
        ("audit", "run", "--html", "a.html", "--out-of-sample", "no"),
    ),
    *(
        ("compare", "run", "run"),
        ("compare", "run", "--plot", "a.svg"),
        ("resume", "run"),
        ("inspect", "run", "--classes"),
    ),
    *(("apply", "run", "--out", "fixed"), ("apply", "run", "--weights", "w.csv", "--decisions", "run/decisions.json")),
)
ON_A_TABLE = (*OF_A_RUN, ("predict", "run", "new.csv"), ("score", "run", "new.csv"))


def make(draw: Draw, folder: Path) -> list[Command]:
    """Copy a run, spoil some of its files, and draw what opens it."""
    name = draw(
        st.sampled_from(("table",) * 4 + ("weighted",) * 3 + ("images", "unfinished", "unfinished", "sweep", "fit"))
    )
    kept = kept_run(name)
    shutil.copytree(kept, folder / "run")
    if name == "fit":
        shutil.copytree(kept.with_name("run.search"), folder / "run.search")
    if name != "images":
        shutil.copyfile(kept.parent / "table" / "test.csv", folder / "new.csv")
    for _ in range(draw(st.sampled_from((1, 1, 1, 2)))):
        spoil(draw, folder, name)
    options = ("--data", "csv", "--data-root", str(kept.parent / "table"), "--model", "linear", "--epochs", "2")
    chosen: tuple[tuple[str, ...], ...] = OF_A_RUN if name == "images" else ON_A_TABLE
    if name == "sweep":
        sweep = ("sweep", "--methods", "erm", *options, "--checkpoint-every", "1epochs", "--out", "run")
        chosen = (sweep, sweep, ("compare", "run"))
    elif name == "fit":
        chosen = (
            ("fit", *options, "--checkpoint-every", "1epochs", "--candidates", "gce", "--budget", "1x", "--out", "run"),
        )
        if draw(st.booleans()):
            shutil.rmtree(folder / "run")
    elif draw(st.integers(0, 9)) == 0:
        chosen = (("train", *options, "--out", "new", "--weights", "run/decisions.json"),)
        if draw(st.booleans()):
            model = next(folder.glob("run/checkpoints/*/model.safetensors"), folder / "missing")
            chosen = (("train", *options, "--out", "new", "--init-from", str(model.relative_to(folder))),)
    return [Command(draw(st.sampled_from(chosen)))]


def spoil(draw: Draw, folder: Path, name: str) -> None:
    """Spoil one file."""
    places = [path for path in sorted(folder.glob("run*/**/*")) if path.is_file()]
    if not places:
        return
    # files of the same name in several checkpoints count once; what is JSON can be wrong in most ways
    names = sorted({path.name for path in places})
    names += 2 * [name for name in names if name.endswith((".json", ".jsonl"))]
    wanted = draw(st.sampled_from(names))
    file = draw(st.sampled_from([path for path in places if path.name == wanted]))
    how = draw(st.sampled_from(("bytes", "bytes", "types", "types", "types", "missing", "folder", "other")))
    if how == "types" and file.suffix in (".json", ".jsonl"):
        text = file.read_bytes().decode(errors="replace")
        lines = text.splitlines() if file.suffix == ".jsonl" else [text]
        try:
            content = json.loads(lines[-1])
        except (ValueError, IndexError):
            # spoilt before
            return
        lines[-1] = json.dumps(changed(draw, content))
        file.write_text("\n".join(lines) + "\n")
    elif how == "missing":
        file.unlink()
    elif how == "folder":
        file.unlink()
        file.mkdir()
    elif how == "other":
        other = kept_run("weighted" if name == "table" else "table")
        found = next((path for path in sorted(other.rglob(file.name)) if path.is_file()), None)
        if found is not None:
            shutil.copyfile(found, file)
    else:
        file.write_bytes(damaged(draw, file.read_bytes()))


def changed(draw: Draw, content: Any) -> Any:
    """Put another value somewhere into values of JSON, or take one away."""
    if isinstance(content, dict | list) and content and draw(st.integers(0, 7)):
        keys = list(content) if isinstance(content, dict) else list(range(min(len(content), 3)))
        key = draw(st.sampled_from(keys))
        copy = content.copy()
        if draw(st.integers(0, 9)) == 0:
            del copy[key]
        else:
            copy[key] = changed(draw, content[key])
        return copy
    return draw(st.sampled_from(OTHERS))


SPOILT = Kind("files of runs", make)
