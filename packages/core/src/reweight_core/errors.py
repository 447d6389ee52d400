"""The one exception that means: the user can fix this."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot work; the message says what, where and what to do, in one line.

    The command line prints it and exits with status 2.
    """


def reason(error: BaseException) -> str:
    """Return the type and the first line of an exception."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""
