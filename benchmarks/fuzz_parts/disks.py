"""Disks that are full or may not be written to."""

from __future__ import annotations

import builtins
import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from fuzz_parts.examine import Command, Draw, Kind
from fuzz_parts.kept_runs import kept_run

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EIO)


@contextmanager
def failing(folder: Path, number: int, after: int) -> Iterator[None]:
    """From the one after so many on, let everything fail that makes or renames a file or folder below a folder.

    Args:
        folder: below it.
        number: of the error.
        after: what still succeeds.
    """
    left = [after]

    def fails(path: Any) -> None:
        if isinstance(path, int) or not str(Path(os.path.abspath(os.fsdecode(path)))).startswith(str(folder)):
            return
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number), os.fsdecode(path))

    def refusing(function: Any, path: Any, *positional: Any, **named: Any) -> Any:
        fails(path)
        return function(path, *positional, **named)

    def opening(path: Any, mode: str = "r", *positional: Any, **named: Any) -> Any:
        if set("wax+") & set(mode):
            fails(path)
        return opened(path, mode, *positional, **named)

    def opening_low(path: Any, flags: int, *positional: Any, **named: Any) -> Any:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            fails(path)
        return opened_low(path, flags, *positional, **named)

    opened, opened_low = builtins.open, os.open
    with ExitStack() as stack:
        for place in (builtins, __import__("io")):
            stack.enter_context(mock.patch.object(place, "open", opening))
        stack.enter_context(mock.patch.object(os, "open", opening_low))
        for name in ("mkdir", "rename", "replace"):
            stack.enter_context(mock.patch.object(os, name, partial(refusing, getattr(os, name))))
        yield


@contextmanager
def full(size: int) -> Iterator[None]:
    """Let every write beyond so many bytes of a file fail, whoever writes: Python or a library."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make(draw: Draw, folder: Path) -> list[Command]:
    """Draw a command that writes, and a disk that fails meanwhile; then what opens what was left, on a sound one."""
    kept = kept_run(draw(st.sampled_from(("table", "weighted"))))
    shutil.copytree(kept, folder / "run")
    data = ("--data", "csv", "--data-root", str(kept.parent / "table"), "--model", "linear")
    train = ("train", *data, "--epochs", "3", "--checkpoint-every", "1epochs", "--out", "new", "--quiet")
    then: tuple[tuple[str, ...], ...] = ()
    what = draw(
        st.sampled_from(("train", "train", "train", "audit", "apply", "predict", "sweep", "compare", "resume", "bare"))
    )
    if what == "train":
        command = (*train, *draw(st.sampled_from(((), ("--observe", "csv"), ("--val-size", "4", "--patience", "2")))))
        then = (
            ("compare", "new"),
            ("eval", "new"),
            ("audit", "new", "--out-of-sample", "no"),
            ("resume", "new"),
            ("eval", "new"),
        )
    elif what == "bare":
        command, then = (*train[:-3], "--quiet"), ()
    elif what == "resume":
        shutil.rmtree(folder / "run")
        shutil.copytree(kept_run("unfinished"), folder / "run")
        command, then = (
            ("resume", "run", "--quiet"),
            (("resume", "run"), ("eval", "run"), ("audit", "run", "--out-of-sample", "no")),
        )
    elif what == "audit":
        files = ("--csv", "a.csv", "--html", "a.html")
        command, then = (
            ("audit", "run", "--quiet", "--out-of-sample", "no", *files),
            (("apply", "run", "--out", "fixed"),),
        )
    elif what == "apply":
        command = (
            "apply",
            "run",
            "--out",
            "fixed",
            "--weights",
            "w.csv",
            "--drop",
            "0.9",
            "--decisions",
            "run/decisions.json",
        )
        then = (
            ("train", "--data", "csv", "--data-root", "fixed", "--model", "linear", "--epochs", "1", "--out", "again"),
            command,
        )
    elif what == "predict":
        command = ("predict", "run", str(kept.parent / "table" / "test.csv"), "--csv", "p.csv")
    elif what == "compare":
        command = ("compare", "run", "--plot", draw(st.sampled_from(("a.svg", "a.png", "a.pdf"))))
    else:
        shutil.rmtree(folder / "run")
        kept = kept_run("sweep")
        shutil.copytree(kept, folder / "run")
        data = ("--data", "csv", "--data-root", str(kept.parent / "table"), "--model", "linear", "--epochs", "2")
        command = ("sweep", "--methods", "erm", *data, "--checkpoint-every", "1epochs", "--out", "run", "--quiet")
        then = (command, ("compare", "run"))
    if draw(st.booleans()):
        trouble = partial(full, draw(st.sampled_from((0, 1, 10, 100, 500, 1000, 2000, 5000))))
    else:
        trouble = partial(failing, folder, draw(st.sampled_from(ERRORS)), draw(st.integers(0, 25)))
    return [Command(command, trouble), *map(Command, then)]


DISKS = Kind("full and read-only disks", make)
