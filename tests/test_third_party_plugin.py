"""A package of somebody else's is found by its metadata alone and is as good as our own."""

import json
import sys

import pytest

from reweight_core.cli.main import main

MODULE = """
import attrs
import torch

from reweight_core import MethodPlugin, hookimpl, option


@attrs.frozen
class Options:
    sharpness: float = option(1.0, "How fast weights fall with the loss.", check=attrs.validators.ge(0))


class TrustEasy:
    def __init__(self, config):
        self.sharpness = config.sharpness

    @hookimpl
    def generate_weights(self, step):
        return torch.softmax(-self.sharpness * step.losses, 0) * step.n


plugin = MethodPlugin(
    name="trust-easy",
    summary="examples of a high loss count less [experimental]",
    build=lambda config, context: TrustEasy(config),
    config=Options,
)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a module and its metadata into a folder on sys.path, as an installer does."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    installed = []

    def install(module, name, code):
        installed.append(module)
        (site / f"{module}.py").write_text(code)
        info = site / f"{module}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[reweight.methods]\n{name} = {module}:plugin\n")

    yield install
    for module in installed:
        sys.modules.pop(module, None)


@pytest.fixture
def reweight(capsys, tmp_path, monkeypatch):
    """Run the program in a folder of its own; give its standard output and error."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*arguments):
        capsys.readouterr()
        try:
            main(list(arguments))
        except SystemExit as finished:
            assert not finished.code, capsys.readouterr().err
        return capsys.readouterr()

    return run


def test_it_is_listed_with_its_summary_as_written(install, reweight):
    install("trust_easy", "trust-easy", MODULE)
    assert "[experimental]" in reweight("list").out
    listed = json.loads(reweight("list", "--json").out)
    assert listed["method"]["trust-easy"] == "examples of a high loss count less [experimental]"


def test_its_origin_is_shown(install, reweight):
    install("trust_easy", "trust-easy", MODULE)
    rows = {row["name"]: row for row in json.loads(reweight("plugins", "--json").out)}
    assert rows["trust-easy"] == {
        "kind": "method",
        "name": "trust-easy",
        "distribution": "trust-easy",
        "version": "2.5",
        "status": "ok",
        "error": "",
    }
    assert "trust-easy" in reweight("plugins").out


def test_its_option_is_in_the_help_under_its_name_and_only_there(install, reweight):
    install("trust_easy", "trust-easy", MODULE)
    core, _, own = reweight("train", "--method", "trust-easy", "--help").out.partition("Options of trust-easy:")
    assert "--sharpness FLOAT" in own
    assert "--sharpness" not in core
    assert "--sharpness" not in reweight("train", "--help").out


def test_it_trains_and_its_option_and_version_are_kept(install, reweight, tmp_path):
    install("trust_easy", "trust-easy", MODULE)
    out = tmp_path / "run"
    reweight("train", "--method", "trust-easy", "--sharpness", "0.5", "--epochs", "2", "--out", str(out))
    config = json.loads((out / "config.json").read_text())
    assert config["options"]["method"] == "trust-easy"
    assert config["options"]["sharpness"] == 0.5
    assert config["plugins"]["method"] == "trust-easy 2.5"
    assert json.loads((out / "summary.json").read_text())["test_accuracy"] > 0.3


def test_a_broken_one_does_not_harm_a_run_of_another_method(install, reweight, tmp_path):
    install("broken_one", "broken", "import not_there")
    reweight("train", "--method", "erm", "--steps", "2", "--out", str(tmp_path / "run"))
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_broken_one_is_one_warning_in_the_list_and_a_row_of_plugins(install, reweight):
    install("broken_one", "broken", "raise ImportError('needs [extra]')")
    shown = reweight("list", "--json")
    assert "erm" in json.loads(shown.out)["method"]
    (line,) = shown.err.splitlines()
    problem = "ImportError: needs [extra]"
    assert line.startswith(f"Warning: method 'broken' of broken-one 2.5 cannot be loaded: {problem}")
    (row,) = (row for row in json.loads(reweight("plugins", "--json").out) if row["name"] == "broken")
    assert (row["status"], row["error"]) == ("broken", problem)
    assert "[extra]" in reweight("plugins").out


def test_its_warnings_to_users_are_shown_and_those_to_programmers_are_not(install, reweight):
    warn = "import warnings\nwarnings.warn('for you')\nwarnings.warn('will change', FutureWarning)\n"
    install("warning_one", "trust-easy", warn + MODULE)
    assert reweight("train", "--method", "trust-easy", "--help").err == "Warning: for you\n"


def test_an_option_that_the_program_has_itself_is_a_mistake_of_the_plugin(install, capsys):
    install("greedy_one", "greedy", MODULE.replace("sharpness", "config").replace("trust-easy", "greedy"))
    with pytest.raises(SystemExit) as finished:
        main(["train", "--method", "greedy", "--help"])
    assert finished.value.code == 2
    assert "method 'greedy' declares --config, which commands of the program have themselves" in capsys.readouterr().err
