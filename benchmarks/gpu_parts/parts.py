"""Running parts: each is a process of its own, with a limit of time, so that one that fails takes no other with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

POLL_SECONDS = 0.2
LINES_OF_ERROR = 25


@attrs.frozen
class Part:
    """A part of the whole.

    Attributes:
        name: what it is called, the same in every call.
        kind: what its figures are: ``machine``, ``capture``, ``bench``, ``check-grad`` or ``runs``.
        arguments: of the interpreter; the process prints JSON, but for that of ``runs``.
        seconds: after which it is stopped and has failed; None for one that goes on where it was stopped.
        least: seconds that must be left for it to be begun.
        beside: whether it may run beside its neighbours that may, too.
        runs: the folder of its runs, for ``runs``.
    """

    name: str
    kind: str
    arguments: tuple[str, ...]
    seconds: float | None = 180
    least: float = 30
    beside: bool = False
    runs: Path | None = None


@attrs.define
class _Running:
    process: subprocess.Popen[bytes]
    started: float


def run_parts(
    parts: Sequence[Part],
    deadline: float,
    at_once: int,
    environment: Mapping[str, str],
    logs: Path,
    tell: Callable[[Part, dict[str, Any]], None],
) -> None:
    """Run parts in their order until a deadline.

    Args:
        parts: what is left to do.
        deadline: when everything is stopped, by ``time.monotonic``.
        at_once: number of parts that run beside each other, of those that may.
        environment: environment variables of the processes.
        logs: folder of what they say.
        tell: is called with each part that is over and its outcome: ``status`` (``done``, ``failed`` or ``stopped``, by
            the deadline), ``seconds``, ``figures`` (what it printed; None without) and ``error`` (how its log ends).
    """
    waiting, running = list(parts), dict[Part, _Running]()
    logs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            left = deadline - time.monotonic()
            waiting = [part for part in waiting if part.least <= left]
            while waiting and _may_begin(waiting[0], running, at_once):
                part = waiting.pop(0)
                running[part] = _Running(_start(part, environment, logs), time.monotonic())
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            for part, one in list(running.items()):
                seconds, status = now - one.started, one.process.poll()
                too_long = part.seconds is not None and seconds > part.seconds
                if status is None and (too_long or now > deadline):
                    _stop([one.process])
                elif status is None:
                    continue
                del running[part]
                outcome = _outcome(part, one.process.returncode, logs)
                if status is None:
                    outcome["status"] = "failed" if too_long else "stopped"
                    outcome["error"] = f"took more than {part.seconds:g} seconds" if too_long else None
                tell(part, outcome | {"seconds": seconds})
    finally:
        _stop([one.process for one in running.values()])


def _may_begin(part: Part, running: Mapping[Part, _Running], at_once: int) -> bool:
    if not running:
        return True
    return part.beside and all(other.beside for other in running) and len(running) < at_once


def _start(part: Part, environment: Mapping[str, str], logs: Path) -> subprocess.Popen[bytes]:
    with open(_log(part, logs, "out"), "wb") as out, open(_log(part, logs, "err"), "wb") as err:
        # a session of its own, so that what it starts can be stopped with it
        return subprocess.Popen(
            [sys.executable, "-P", *part.arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
        for process in processes:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        for process in processes:
            try:
                process.wait(timeout=patience)
            except subprocess.TimeoutExpired:
                continue


def _outcome(part: Part, status: int, logs: Path) -> dict[str, Any]:
    said, warned = (_log(part, logs, end).read_text(encoding="utf-8", errors="replace") for end in ("out", "err"))
    outcome: dict[str, Any] = {"status": "done", "figures": None, "error": None}
    if status == 0 and part.runs is None:
        try:
            outcome["figures"] = json.loads(said)
        except ValueError:
            outcome |= {"status": "failed", "error": f"printed no JSON: {said[-500:]}"}
    if status != 0:
        lines = (said.splitlines() + warned.splitlines())[-LINES_OF_ERROR:]
        outcome |= {"status": "failed", "error": "\n".join(lines) or f"exit status {status}"}
    return outcome


def _log(part: Part, logs: Path, end: str) -> Path:
    return logs / f"{''.join(c if c.isalnum() else '-' for c in part.name)}.{end}"
