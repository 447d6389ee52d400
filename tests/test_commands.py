"""Commands of other packages: found by their metadata, and no harm to the program where they are broken."""

import json
import re
import subprocess
import sys

import pytest

import reweight_core

RECORD = """
from reweight_core import CommandPlugin

plugin = CommandPlugin(name="{name}", summary="says hello to you", command="{command}")
"""

COMMAND = """
import click
import torch


@click.command()
@click.option("--to", default="you")
def command(to):
    "Say hello."
    click.echo(f"hello {to}")


def count(number):
    return number + 1
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with a command into a folder on sys.path, as an installer does."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    installed = []

    def install(name, module=None, package="greet", version="2.5"):
        command = f"{package}_command:command"
        code = {package: module or RECORD.format(name=name, command=command), f"{package}_command": COMMAND}
        for file, text in code.items():
            (site / f"{file}.py").write_text(text)
        installed.extend(code)
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[reweight.commands]\n{name} = {package}:plugin\n")
        return site

    yield install
    for module in installed:
        sys.modules.pop(module, None)


def plugin_row(reweight, package):
    return next(row for row in json.loads(reweight("plugins", "--json").out) if row["distribution"] == package)


def test_it_is_a_command_like_cores_own(install, reweight):
    install("greet")
    assert "says hello to you" in reweight("--help").out
    assert "says hello to you" in reweight().out
    assert reweight("greet", "--to", "all").out == "hello all\n"
    assert reweight("greet", "--help").out.startswith("Usage: reweight greet [OPTIONS]")
    assert "did you mean 'greet'?" in reweight("gret").err
    assert plugin_row(reweight, "greet")["status"] == "ok"


def test_its_function_is_there_in_python_under_its_name(install):
    record = RECORD.replace('command="{command}"', 'command="{command}", function="greet_command:count"')
    install("greet", record.format(name="greet", command="greet_command:command"))
    assert reweight_core.greet(2) == 3


def test_without_one_it_is_no_name_of_the_package(install):
    install("greet")
    assert not hasattr(reweight_core, "greet") and not hasattr(reweight_core, "nothing")
    install("broken", "import not_there", package="broken")
    assert not hasattr(reweight_core, "broken")


def test_help_imports_its_record_alone(install):
    site = install("greet")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from reweight_core.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([name for name in ('greet', 'greet_command', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "says hello to you" in done.stdout
    assert done.stdout.splitlines()[-1] == "['greet']"


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
        ("raise SystemExit(3)", "ImportError: importing greet ends the program"),
        ("plugin = 3", "TypeError: entry point greet:plugin is of type int, not CommandPlugin"),
        (RECORD.format(name="other", command="x:y"), "ValueError: entry point 'greet' holds a record named 'other'"),
    ],
)
def test_a_broken_one_costs_the_help_one_line_and_nothing_else(install, reweight, module, problem):
    whole = reweight("--help").out
    install("greet", module)
    done = reweight("--help")
    assert (done.status, done.out) == (0, whole)
    assert done.err == (
        f"Warning: command 'greet' of greet 2.5 cannot be loaded: {problem}; mend or uninstall that package\n"
    )
    for command in ("train", "list"):
        assert reweight(command, "--help").err == ""
    asked = reweight("greet")
    assert (asked.status, asked.out, len(asked.err.splitlines())) == (2, "", 1)
    assert problem in asked.err
    assert plugin_row(reweight, "greet")["error"] == problem


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("not_there:command", "ModuleNotFoundError: No module named 'not_there'"),
        ("greet_command:missing", "AttributeError: module 'greet_command' has no attribute 'missing'"),
        ("click:echo", "TypeError: click:echo is of type function, not click.Command"),
    ],
)
def test_one_whose_record_names_no_command_is_an_error_when_it_is_used(install, reweight, command, problem):
    install("greet", RECORD.format(name="greet", command=command))
    assert reweight("--help").err == ""
    done = reweight("greet")
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert done.err.startswith("Error: command 'greet' of greet 2.5 cannot be loaded: ")
    assert problem in done.err
    row = plugin_row(reweight, "greet")
    assert (row["status"], row["error"]) == ("broken", problem)


def test_one_whose_import_ends_the_program_is_broken_and_ends_nothing(install, reweight):
    site = install("greet", RECORD.format(name="greet", command="greet_command:command"))
    (site / "greet_command.py").write_text("raise SystemExit(3)")
    problem = "ImportError: importing greet_command ends the program"
    assert plugin_row(reweight, "greet")["error"] == problem
    done = reweight("greet")
    assert (done.status, problem in done.err) == (2, True)


def test_cores_own_command_wins_and_the_clash_is_shown(install, reweight):
    own = reweight("list", "--help").out
    install("list")
    help_text = reweight("--help")
    assert "says hello to you" not in help_text.out
    assert help_text.err == ""
    assert reweight("list", "--help").out == own
    row = plugin_row(reweight, "greet")
    assert (row["status"], row["name"]) == ("duplicate", "list")
    assert row["error"].startswith("core has a command 'list', which is used")
    assert row["error"] in reweight("plugins").out


def test_two_packages_with_one_command_are_an_error_when_it_is_used(install, reweight):
    install("greet")
    install("greet", RECORD.format(name="greet", command="x:y"), package="welcome", version="1.0")
    shown, used = reweight("--help"), reweight("greet")
    assert (shown.status, used.status) == (0, 2)
    for line, kind in ((shown.err, "Warning"), (used.err, "Error")):
        assert re.fullmatch(rf"{kind}: command 'greet' is provided by (.*) and (.*): uninstall one of them\n", line)
        assert "greet 2.5" in line
        assert "welcome 1.0" in line
    assert plugin_row(reweight, "welcome")["status"] == "duplicate"


def test_one_that_is_off_is_not_there(install, reweight, monkeypatch):
    install("greet")
    monkeypatch.setenv("REWEIGHT_PLUGINS", "none")
    assert "says hello" not in reweight("--help").out
    assert "no command is called 'greet'" in reweight("greet").err
    assert plugin_row(reweight, "greet")["status"] == "off"
