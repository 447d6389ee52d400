"""Commands and code of the README and the docs are run; where a download is needed, the options are checked."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reweight_core.cli.main import main
from reweight_core.testing import ComponentSuite

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted(ROOT.glob("docs/**/*.md"))]
PAGES += sorted(ROOT.glob("packages/*/README.md"))
COMMANDS = sorted(
    {
        command
        for page in PAGES
        for command in re.findall(r"(?:^    |^\$ |\| `)(reweight [a-z][^`\n]*)", page.read_text(), re.M)
    }
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with photographs and a finished run, as the docs assume them."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.RandomState(0)
    for part, name in [(p, c) for p in ("train", "test", "meta") for c in ("cat", "dog")]:
        folder = tmp_path / "photos" / part / name
        folder.mkdir(parents=True)
        for number in range(60 if part == "train" else 3):
            Image.fromarray(rng.randint(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "table").mkdir()
    rows = [f"{('no', 'yes')[i % 2]},{20 + i % 50},{1.5 + i % 2}" for i in range(200)]
    (tmp_path / "table" / "train.csv").write_text("\n".join(["label,age,height", *rows]))
    return tmp_path


@pytest.fixture
def documented_plugin(tmp_path, monkeypatch):
    """The method of docs/plugins.md, installed as its pyproject.toml says, and the component."""
    module = blocks("docs/plugins.md", "python")[0]
    pyproject = blocks("docs/plugins.md", "toml")[0]
    site = tmp_path / "site"
    dist_info = site / "reweight_method_small_loss-0.1.0.dist-info"
    dist_info.mkdir(parents=True)
    (site / "reweight_method_small_loss.py").write_text(module)
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: reweight-method-small-loss\nVersion: 0.1.0\n")
    entry = re.search(r'^small-loss = "(.*)"$', pyproject, re.M)
    assert entry
    (dist_info / "entry_points.txt").write_text(f"[reweight.methods]\nsmall-loss = {entry[1]}\n")
    component = next(code for code in blocks("docs/plugins.md", "python") if "ComponentPlugin(" in code)
    (site / "reweight_component_jitter.py").write_text(component)
    component_info = site / "reweight_component_jitter-0.1.0.dist-info"
    component_info.mkdir()
    (component_info / "METADATA").write_text("Metadata-Version: 2.1\nName: reweight-component-jitter\nVersion: 0.1.0\n")
    (component_info / "entry_points.txt").write_text(
        "[reweight.components]\njitter = reweight_component_jitter:plugin\n"
    )
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("reweight_component_jitter", None)
    sys.modules.pop("reweight_method_small_loss", None)


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as finished:
        return int(finished.code or 0)
    return 0


def test_the_pages_hold_commands():
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_command_works(command, workplace, documented_plugin, capsys):
    arguments = shlex.split(command)[1:]
    if "RUN" in arguments or any(a.startswith("runs/") for a in arguments):
        assert run("train", "--epochs", "1", "--out", "finished") == 0
        arguments = ["finished" if a == "RUN" or a.startswith("runs/") else a for a in arguments]
    if "FILE" in arguments:
        (workplace / "FILE").write_text(blocks("docs/runs.md", "toml")[0])
    if arguments[0] == "train" and "--help" not in arguments:
        # nothing is downloaded in a test: of these commands only the options are checked
        arguments += ["--help"] if "--download" in command or "cifar" in command else ["--steps", "2"]
    if arguments[0] == "sweep":
        # those that made results take minutes: their options are checked
        arguments += ["--help"] if "cifar" in command or "--seeds 5" in command else ["--steps", "2"]
    if arguments[0] == "reproduce" and "--list" not in arguments and "digits" not in command:
        # the options of each cell are checked, no cell is run
        arguments += ["--dry-run"]
    if arguments[0] == "bench":
        # the whole benchmark takes minutes: one small cell of it is run
        cell = "--methods fsr" if "fsr" in command else "--methods l2rw --strategies fd"
        arguments += shlex.split(f"{cell} --model mlp --image 1x8x8 --repetitions 1")
    if "folder" in arguments:
        arguments += ["--image-size", "32"]
    code = run(*arguments)
    assert code == 0, capsys.readouterr().err


def test_python_of_the_run_page_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("docs/runs.md", "python")
    exec(compile(code.replace("epochs=20", "epochs=2"), "docs/runs.md", "exec"), {})
    accuracy, folder = capsys.readouterr().out.split()
    assert 0 < float(accuracy) < 1
    assert (tmp_path / folder / "summary.json").is_file()


def test_documented_suite_accepts_the_documented_plugin(documented_plugin):
    scope: dict[str, object] = {}
    suite_code = next(code for code in blocks("docs/plugins.md", "python") if "MethodSuite" in code)
    exec(compile(suite_code, "docs/plugins.md", "exec"), scope)
    suite = scope["TestSmallLoss"]()
    suite.test_entry_point_holds_a_complete_record()
    suite.test_weights_are_finite_and_detached()
    suite.test_recorded_step_replays_like_an_eager_one()


def test_the_documented_component_keeps_the_contract(documented_plugin):
    class TestJitter(ComponentSuite):
        name = "jitter"

    suite = TestJitter()
    suite.test_entry_point_holds_a_complete_record()
    suite.test_restored_state_continues_like_an_uninterrupted_run()
    suite.test_recorded_step_replays_like_an_eager_one()
    assert run("train", "--with", "jitter", "--jitter-amount", "0.2", "--steps", "2") == 0


def test_the_documented_command_runs(tmp_path, monkeypatch, capsys):
    blocks_of_page = blocks("docs/plugins.md", "python")
    record, command = (code for code in blocks_of_page if "CommandPlugin(" in code or "click.command" in code)
    site = tmp_path / "site"
    info = site / "reweight_command_count-0.1.0.dist-info"
    info.mkdir(parents=True)
    (site / "reweight_command_record.py").write_text(record)
    (site / "reweight_command_count.py").write_text(command)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reweight-command-count\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[reweight.commands]\ncount-labels = reweight_command_record:count\n")
    monkeypatch.syspath_prepend(site)
    try:
        assert run("count-labels", "--data", "digits") == 0
        assert len(capsys.readouterr().out.splitlines()) == 10
        assert run("count-labels", "--data", "nothing") == 2
        assert run("--help") == 0
        assert "Count the examples of every class." in capsys.readouterr().out
    finally:
        for name in ("reweight_command_record", "reweight_command_count"):
            sys.modules.pop(name, None)


def test_documented_hooks_are_those_of_the_specification():
    from reweight_core.plugins.hookspecs import Hooks

    specified = {
        f"{name}({', '.join(function.__code__.co_varnames[1 : function.__code__.co_argcount])})"
        for name, function in vars(Hooks).items()
        if hasattr(function, "reweight_spec")
    }
    documented = set(re.findall(r"^\| `(\w+\(.*?\))` \|", (ROOT / "docs/plugins.md").read_text(), re.M))
    assert documented == specified
