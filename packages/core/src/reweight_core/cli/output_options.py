"""The options that say what a command prints: ``--json`` and ``--quiet``."""

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
"""Give a command the option ``--json``, the parameter ``as_json``: its result for programs, on standard output."""

quiet_option = click.option("--quiet", is_flag=True, help="Print warnings, errors and one line of result alone.")
"""Give a command that shows progress the option ``--quiet``."""
