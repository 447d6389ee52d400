"""Commands and code of the README and the docs are run; where a download is needed, the options are checked."""

import json
import math
import re
import shlex
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from reweight_core import DataConfig, UserError, configure, hookimpl, load_data
from reweight_core.cli.main import main
from reweight_core.plugins import erm
from reweight_core.testing import ComponentSuite, DataSuite, MethodSuite, tiny_parts
from reweight_core.testing.method_suite import run_steps

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
def documented_plugins(tmp_path, monkeypatch):
    """Every plugin of docs/plugins.md whose file is named, installed under the entry points that stand there."""
    page = (ROOT / "docs/plugins.md").read_text()
    site = tmp_path / "site"
    modules = re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)```", page, re.M | re.S)
    for name, code in modules:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(code)
    info = site / "documented_plugins-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: documented-plugins\nVersion: 0.1.0\n")
    groups = re.findall(r'^\[project\.entry-points\."(.+)"\]\n(\S+) = "(.+)"$', page, re.M)
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{name} = {target}\n" for group, name, target in groups))
    monkeypatch.syspath_prepend(site)
    # for the suites' tests that ask a new interpreter
    monkeypatch.setenv("PYTHONPATH", str(site))
    yield
    documented = {name.removesuffix(".py").split("/")[0] for name, _ in modules}
    for name in [name for name in sys.modules if name.split(".")[0] in documented]:
        del sys.modules[name]


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as finished:
        return int(finished.code or 0)
    return 0


def test_the_pages_hold_commands():
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_command_works(command, workplace, documented_plugins, capsys):
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


def contract_of(suite: type) -> list[str]:
    return sorted(name for name in dir(suite) if name.startswith("test_"))


@pytest.mark.parametrize("name", contract_of(MethodSuite))
def test_documented_suite_accepts_the_documented_method(name, documented_plugins):
    scope: dict[str, type] = {}
    suite_code = next(code for code in blocks("docs/plugins.md", "python") if "MethodSuite" in code)
    exec(compile(suite_code, "docs/plugins.md", "exec"), scope)
    getattr(scope["TestSmallLoss"](), name)()


class Jitter(ComponentSuite):
    name = "jitter"


class Again(ComponentSuite):
    name = "again"


@pytest.mark.parametrize("suite", [Jitter, Again])
@pytest.mark.parametrize("name", contract_of(ComponentSuite))
def test_the_documented_components_keep_the_contract(suite, name, documented_plugins):
    getattr(suite(), name)()


def test_the_documented_component_trains_again_on_the_share_that_it_is_told(workplace, documented_plugins):
    options = ["--epochs", "2", "--batch-size", "100", "--again-share", "0.25", "--out", "run"]
    assert run("train", "--data", "digits", "--model", "mlp", "--with", "again", *options) == 0
    lines = [json.loads(line) for line in (workplace / "run" / "metrics.jsonl").read_text().splitlines()]
    config = json.loads((workplace / "run" / "config.json").read_text())
    size = config["data"]["train_size"]
    first, second = math.ceil(size / 100), math.ceil(int(0.25 * size) / 100)
    assert [line["stage"] for line in lines] == ["train"] * 2 + ["again"] * 2
    assert [line["step"] for line in lines] == [first, 2 * first, 2 * first + second, 2 * (first + second)]


class TestDocumentedDataset(DataSuite):
    name = "bars"

    @pytest.fixture(autouse=True)
    def _installed(self, documented_plugins):
        """Its tests find the dataset."""


def test_documented_data_noise_and_network_train_together(workplace, documented_plugins):
    command = next(command for command in COMMANDS if "--data bars" in command)
    assert run(*shlex.split(command)[1:], "--steps", "2", "--out", "run") == 0
    summary = json.loads((workplace / "run" / "summary.json").read_text())
    assert 0 < summary["test_accuracy"] < 1


def test_documented_noise_turns_the_share_of_labels_that_it_is_told(documented_plugins):
    given = load_data(configure(DataConfig, data="bars"))
    assert 0.05 < given.noise_rate < 0.15
    noisy = load_data(configure(DataConfig, data="bars", noise="next-class:1"))
    # of two classes the next one is the other: what was right is wrong, and the other way round
    assert noisy.noise_rate == pytest.approx(1 - given.noise_rate)
    with pytest.raises(UserError, match=r"next-class:2.*0 to 1"):
        load_data(configure(DataConfig, data="bars", noise="next-class:2"))


def test_the_documented_second_network_trains_and_is_asked_between_steps(monkeypatch):
    code = next(code for code in blocks("docs/plugins.md", "python") if "class CoTeaching" in code)
    names = {"hookimpl": hookimpl}
    exec(compile(code, "docs/plugins.md", "exec"), names)
    keeping = type("Keeping", (), {"keep": 0.5})
    record = attrs.evolve(erm.plugin, build=lambda config, context: names["CoTeaching"](keeping, context))
    monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)
    parts = tiny_parts("erm", model="mlp")
    before = parts.hooks.networks["second"].model[1].weight.clone()
    run_steps(parts, 2)
    assert not torch.equal(parts.hooks.networks["second"].model[1].weight, before)
    assert sorted(parts.step.samples.tensors["last_weight"].unique().tolist()) == [0, 2]


def test_the_documented_command_runs(documented_plugins, capsys):
    assert run("count-labels", "--data", "digits") == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert run("count-labels", "--data", "nothing") == 2
    assert run("--help") == 0
    assert "Count the examples of every class." in capsys.readouterr().out


def test_documented_hooks_are_those_of_the_specification():
    from reweight_core.plugins.hookspecs import Hooks

    specified = {
        f"{name}({', '.join(function.__code__.co_varnames[1 : function.__code__.co_argcount])})"
        for name, function in vars(Hooks).items()
        if hasattr(function, "reweight_spec")
    }
    documented = set(re.findall(r"^\| `(\w+\(.*?\))` \|", (ROOT / "docs/plugins.md").read_text(), re.M))
    assert documented == specified
