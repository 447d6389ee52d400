"""What went wrong, told to whoever can mend it."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LONGEST_WORD, SHOWN = 500, 100
"""Characters of a word from which on a message shows its ends alone, and of each end."""


class UserError(Exception):
    """Something the user gave cannot work; the message says what, where and what to do, in one line.

    The command line prints it and exits with status 2.
    """


class DivergedError(UserError):
    """A run was ended early because it has diverged; the program exits with status 1."""


class LostProcessError(UserError):
    """Another process of a run has ended, or does not answer; it can only be resumed."""


class InterruptedRun(KeyboardInterrupt):
    """What runs was asked by a signal to end; what there was to save is saved.

    Args:
        signal: its number.
        notes: what whoever sent it is told.

    Attributes:
        status: the exit status of a program that ends by it.
    """

    def __init__(self, signal: int, *notes: str):
        super().__init__(*notes)
        self.status = 128 + signal
        for note in notes:
            self.add_note(note)

    def __reduce__(self) -> tuple[type, tuple[int | str, ...]]:
        return InterruptedRun, (self.status - 128, *getattr(self, "__notes__", ()))


class PluginError(UserError):
    """A plugin failed, or gave something that cannot be used; the message names its kind, its name and what it did."""


def reason(error: BaseException) -> str:
    """Return the type and the first line of an exception."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def on_one_line(text: str) -> str:
    """Return a message as one line that a terminal can show: whatever a name in it holds, and however long it is."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in " ".join(text.splitlines()))
    return re.sub(rf"\S{{{LONGEST_WORD},}}", lambda found: f"{found[0][:SHOWN]}...{found[0][-SHOWN:]}", line)


def in_python(text: str) -> str:
    """Return a message with the options by their names in Python, ``max_weight`` and not ``--max-weight``."""
    return re.sub(r"--([a-z][a-z-]*)", lambda found: found[1].replace("-", "_"), text)


@contextmanager
def told_in_python() -> Iterator[None]:
    """Tell the user's mistakes with the options by their names in Python."""
    try:
        yield
    except UserError as error:
        error.args = (in_python(str(error)),)
        raise


def means_full_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory left."""
    # torch's class for the GPU is told by its name, to import no torch; it has none for the CPU
    is_class_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_class_of_memory or "allocate memory" in str(error)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""
