"""Exceptions that come out of plugins, told with the plugin's kind and name."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reweight_core.errors import LostProcessError, PluginError, UserError, means_full_memory, reason


@contextmanager
def blamed(whose: str, doing: str, module: str) -> Iterator[None]:
    """Say whose an exception is that comes out of the block; the exception itself is its cause.

    One of the user's mistakes stays in the plugin's words; any other says what the plugin did and where:
    ``component 'balanced': transform_batch: KeyError: 'x' (balanced.py, line 12)``. A full memory is nobody's mistake.

    Args:
        whose: kind and name of the plugin, ``component 'balanced'``.
        doing: the hook or function that is called.
        module: the module that it is defined in, or ``module:name``; the line is one of this module's package.

    Raises:
        PluginError: in place of the exception.
    """
    try:
        yield
    except (PluginError, LostProcessError):
        raise
    except UserError as error:
        text, names = str(error), whose.split("'")[1::2]
        names_it = any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in names)
        raise PluginError(text if names_it else f"{whose}: {text}") from error
    except Exception as error:
        if means_full_memory(error):
            raise
        raise PluginError(f"{whose}: {doing}: {reason(error)}{_place(error, module)}") from error


def _place(error: BaseException, module: str) -> str:
    """Return file and line in the plugin's package that an exception went through last, in brackets."""
    package, place = re.split("[.:]", module)[0], ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            place = f" ({Path(frame.f_code.co_filename).name}, line {line})"
    return place
