"""How the program prints."""

from rich.console import Console


def console() -> Console:
    """Return a console that prints text as it is: names of files and classes may look like markup."""
    return Console(markup=False, emoji=False, highlight=False)
