"""Writing the report: style, scripts, pictures and figures put together in one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from reweight_audit.html.content import content_of
from reweight_audit.html.run_files import run_content
from reweight_audit.records import Audit
from reweight_core import UserError, write_text

LISTED = 50_000
"""Examples that are listed, at most."""

PICTURES = 2_000
"""Examples with a picture, and all further ones that are wrong by the estimate, as long as there is room."""

PICTURE_BYTES = 12_000_000
"""Room for pictures; in the file they take a third more."""

_AT_ONCE = 200

STYLES = ("base.css", "gallery.css", "selected.css", "figures.css", "matrix.css", "media.css")
"""The style sheets, in the order in which they override each other."""

SCRIPTS = (
    *("dom.js", "decisions.js", "filters.js", "gallery.js", "details.js", "charts.js", "matrix.js", "figures.js"),
    "page.js",
)
"""The scripts, each of which uses those before it."""


def write_report(
    path: Path, audit: Audit, run: Path, thumbnails: Callable[[Sequence[int]], Sequence[bytes]] | None
) -> None:
    """Write the report of an audit.

    Args:
        path: the file.
        audit: what was found.
        run: the folder of the run, for its learning curves and options.
        thumbnails: gives small JPEG or PNG files of the examples at some positions of the audit (`thumbnails_of`), or
            None if they are no images.

    Raises:
        UserError: if a picture cannot be read, or the file cannot be written; an older one then stays as it was.
    """
    order = audit.order()
    content = content_of(audit, order[:LISTED]) | run_content(run)
    content["pictures"] = [] if thumbnails is None else list(_pictures(audit, order[:LISTED], thumbnails))
    style = "\n".join(_asset(name) for name in STYLES)
    script = "\n".join(_asset(name) for name in SCRIPTS)
    page = Template(_asset("page.html")).substitute(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_as_script_data(content),
    )
    try:
        write_text(path, page)
    except OSError as error:
        raise UserError(f"--html {path}: {error}") from error


def _pictures(
    audit: Audit, listed: np.ndarray, thumbnails: Callable[[Sequence[int]], Sequence[bytes]]
) -> Iterator[str]:
    """Give data URLs of the pictures of the worst examples, as many as there is room for."""
    wanted = listed[: max(PICTURES, round(audit.wrong_of_all.value * int((~audit.planted).sum())))]
    room = PICTURE_BYTES
    for start in range(0, len(wanted), _AT_ONCE):
        for picture in thumbnails([int(position) for position in wanted[start : start + _AT_ONCE]]):
            room -= len(picture)
            if room < 0:
                return
            kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
            yield f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _as_script_data(value: Any) -> str:
    """Return JSON in ASCII that can stand in a script element, whatever the names in it are."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy calls a style or a script by."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
