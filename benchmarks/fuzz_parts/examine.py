"""Running the program in this process on drawn input, and judging how it ends."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import attrs
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz_parts.kept_out import LongWork, little_memory, no_long_work, no_network

SECONDS = 30
"""After which a command hangs: each of them should take well under a second."""

LONGEST = 3000
"""Characters of an error; more than that is not one line to be read."""

OPENED = "opened-a-pickle"
"""File that the pickles among the examples leave in the folder when they are opened."""

Draw = Callable[[st.SearchStrategy[Any]], Any]
"""Draws one value of a strategy."""


@attrs.frozen
class Command:
    """A command line, and what it runs in.

    Attributes:
        arguments: those of the program.
        trouble: gives what the machine does to it meanwhile; None for nothing.
        follows: whether it is run only if the one before it was not refused.
    """

    arguments: Sequence[str]
    trouble: Callable[[], AbstractContextManager[object]] = nullcontext
    follows: bool = False


Make = Callable[[Draw, Path], Sequence[Command]]
"""Writes the files of an example into a folder, and returns the commands to run there one after the other."""


@attrs.frozen
class Kind:
    """A kind of input.

    Attributes:
        name: for the table.
        make: draws an example.
    """

    name: str
    make: Make


@attrs.frozen
class Ended:
    """How a command ended.

    Attributes:
        how: ``refused`` (exit status 2), ``ran`` (0, or work would begin), ``ended`` (1: the run diverged) or
            ``problem``.
        told: what is wrong, if it is a problem.
        place: what tells one problem from another.
    """

    how: str
    told: str = ""
    place: str = ""


@attrs.define
class Outcome:
    """What came of the examples of a kind.

    Attributes:
        counts: commands by how they ended.
        problems: by place, the first found of each: what is wrong, and what reproduces it.
    """

    counts: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(("refused", "ran", "ended", "problem"), 0))
    problems: dict[str, str] = attrs.field(factory=dict)


class TimeIsUpError(BaseException):
    """A command took too long."""


def examine(kind: Kind, examples: int, number: int, kept: Path | None = None) -> Outcome:
    """Draw examples of a kind and run their commands, each example in a new folder.

    Args:
        kind: what to draw.
        examples: how many at most.
        number: seed that the draws follow from.
        kept: where the folders of examples with problems are kept; None for nowhere.
    """
    outcome = Outcome()

    def note(command: Command, ended: Ended, folder: Path) -> None:
        outcome.counts[ended.how] += 1
        if ended.how != "problem" or ended.place in outcome.problems:
            return
        line = re.sub(
            "x{300,}", lambda found: f"<x {len(found[0])} times>", shlex.join(["reweight", *command.arguments])
        )
        text = f"{ended.told}\n    {line}"
        if kept is not None:
            place = kept / f"{kind.name.replace(' ', '-')}-{len(outcome.problems) + 1}"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(folder, place, symlinks=True)
            text += f"\n    in {place}"
        outcome.problems[ended.place] = text

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.data())
    def one(data: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name, inside(Path(name)) as folder:
            last = Ended("ran")
            for command in kind.make(data.draw, folder):
                if not command.follows or last.how == "ran":
                    last = run(command)
                    if (folder / OPENED).exists():
                        last = Ended("problem", "a pickle was opened", "pickle")
                    note(command, last, folder)

    with no_network(), little_memory():
        one()
    return outcome


@contextmanager
def inside(folder: Path) -> Iterator[Path]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


def run(command: Command) -> Ended:
    """Run the program, and judge how it ends."""
    from reweight_core.cli.main import main

    # as a terminal of UTF-8 has them
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    status: Any = 0
    path = list(sys.path)
    try:
        with no_long_work(), time_limit(SECONDS), redirect_stdout(out), redirect_stderr(err), command.trouble():
            try:
                main([str(argument) for argument in command.arguments])
            finally:
                out.flush()
    except SystemExit as finished:
        status = finished.code or 0
    except LongWork:
        pass
    except TimeIsUpError as error:
        return Ended("problem", f"takes more than {SECONDS} seconds", f"time {_innermost(error)}")
    except BaseException as error:
        return Ended("problem", f"{type(error).__name__}: {error} ({_innermost(error)})"[:500], _innermost(error))
    finally:
        sys.path[:] = path
    if isinstance(status, str):
        status = 1
    err.flush()
    # the buffer is the BytesIO that the stream was made of, which its type does not say
    return judged(status, err.buffer.getvalue().decode())  # type: ignore[attr-defined]


def judged(status: Any, err: str) -> Ended:
    """Judge an exit status and what was written to standard error."""
    lines = [line for line in err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error: ")]
    others = [line for line in lines if not line.startswith(("Error: ", "Warning: "))]

    def problem(what: str) -> Ended:
        shown = err.strip()[-400:]
        return Ended("problem", f"{what}: {shown}", f"{what} {re.sub(r'[0-9]+', '', shown)[-80:]}")

    if status not in (0, 1, 2):
        return problem(f"exit status {status}")
    if "Traceback" in err:
        return problem("a traceback")
    if re.search(r"Warning: (overflow|invalid value|divide by zero|Mean of empty|Degrees of freedom)", err):
        return problem("a warning of a library")
    if status == 0:
        return Ended("ran") if not errors else problem("exit status 0 with an error")
    if status == 1 and not errors:
        return Ended("ended")
    if len(errors) != 1 or not lines[-1].startswith("Error: "):
        return problem("not one line of error")
    (line,) = errors
    if others and status == 2:
        return problem("more than one line")
    if len(line) > LONGEST or not line.isprintable():
        return problem("an error that cannot be read")
    if "memory is full" in line:
        return problem("memory is taken before it is estimated")
    if re.search(r"\(\w+\.py, line \d+\)", line):
        return problem("a mistake of a plugin of ours")
    return Ended("refused" if status == 2 else "ended")


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `TimeIsUpError` in the block when it takes too long."""

    def stop(number: int, frame: Any) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _innermost(error: BaseException) -> str:
    """Say where an exception was raised: the last line that is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "reweight_" in frame.filename] or list(frames)
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
