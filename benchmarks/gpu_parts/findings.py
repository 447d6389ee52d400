"""What is known so far, kept in one file: the outcome of every part, what went wrong in it, what is left to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_parts.parts import Part


class Findings:
    """Outcomes of parts by name, in ``results.json`` of a folder.

    Args:
        folder: where it lies; it may hold that of an earlier call.
        digest: of the code at hand.
    """

    def __init__(self, folder: Path, digest: str):
        self._file, self._digest = folder / "results.json", digest
        self.outcomes: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            self.outcomes = json.loads(self._file.read_text(encoding="utf-8"))

    def note(self, part: Part, outcome: dict[str, Any]) -> None:
        """Keep an outcome; a part that was stopped leaves what an earlier code found of it."""
        known = self.outcomes.get(part.name)
        if outcome["status"] == "stopped" and outcome["figures"] is None and known is not None:
            return
        self.outcomes[part.name] = {"kind": part.kind, "digest": self._digest, **outcome}
        partial = self._file.with_name("results.json.partial")
        partial.write_text(json.dumps(self.outcomes, indent=1), encoding="utf-8")
        partial.replace(self._file)

    def left(self, parts: Sequence[Part]) -> list[Part]:
        """Return the parts that are not finished, and those that went wrong before the code changed."""
        return [part for part in parts if not self._is_finished(part.name)]

    def _is_finished(self, name: str) -> bool:
        outcome = self.outcomes.get(name)
        if outcome is None or outcome["status"] == "stopped":
            return False
        return not problems(outcome) or outcome["digest"] == self._digest


def problems(outcome: dict[str, Any]) -> list[str]:
    """Return what went wrong in a part, a line each."""
    found = []
    if outcome["status"] == "failed":
        found.append(last_line(outcome["error"]))
    figures = outcome["figures"]
    if outcome["kind"] == "machine" and figures:
        found += figures["broken"]
    if outcome["kind"] == "capture":
        for row in figures or ():
            if row["verdict"] in ("error", "different"):
                apart = f"replays differ by {row['difference']:.1e} in {row['worst']}" if "difference" in row else ""
                found.append(f"{row['subject']}: {row.get('error', apart)}")
    if outcome["kind"] in ("bench", "check-grad"):
        found += [
            f"{row.get('method', 'D under')} {row['strategy'] or ''}: {row['error']}"
            for row in figures or ()
            if "error" in row
        ]
    return found


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no word")
