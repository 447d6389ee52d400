"""How the program prints."""

from typing import Any

from rich.console import Console
from rich.text import Text


class _PlainConsole(Console):
    """Prints text as it is: names of files and classes may look like markup, or hold what a terminal obeys."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return the text, with ``?`` for letters that cannot be printed."""
        return super().render_str("".join(x if x.isprintable() or x == "\n" else "?" for x in text), **settings)


def console() -> Console:
    """Return a console that prints text as it is."""
    return _PlainConsole(markup=False, emoji=False, highlight=False)
