"""Commands and code of the README and the docs are run; where a download is needed, the options are checked."""

import json
import math
import re
import shlex
import shutil
import sys
from pathlib import Path

import attrs
import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from reweight_core import Batch, Context, DataConfig, UserError, configure, load_data
from reweight_core.cli.main import main
from reweight_core.plugins.guard import ONE_RESULT
from reweight_core.testing import (
    ComponentSuite,
    DataSuite,
    LossSuite,
    MethodSuite,
    ModelSuite,
    NoiseSuite,
    RecordSuite,
    tiny_parts,
)
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
        for number in range({"train": 60, "test": 3, "meta": 20}[part]):
            Image.fromarray(rng.randint(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "table").mkdir()
    rows = [f"{('no', 'yes')[i % 2]},{20 + i % 50},{1.5 + i % 2}" for i in range(200)]
    (tmp_path / "table" / "train.csv").write_text("\n".join(["label,age,height", *rows]))
    (tmp_path / "embeddings").mkdir()
    np.save(tmp_path / "embeddings" / "train.npy", rng.randn(200, 8).astype(np.float16))
    np.save(tmp_path / "embeddings" / "train_labels.npy", np.arange(200) % 2)
    return tmp_path


@pytest.fixture
def documented_plugins(tmp_path, monkeypatch):
    """Every plugin of docs/plugins.md whose file is named, installed under the entry points that stand there."""
    page = (ROOT / "docs/plugins.md").read_text()
    site = tmp_path / "site"
    modules = re.findall(r"^`([\w/]+\.(?:py|toml))`:\n\n```(?:python|toml)\n(.*?)```", page, re.M | re.S)
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
    if arguments[0] == "apply":
        assert run("audit", "finished") == 0
    if "corrected" in arguments and arguments[0] == "train":
        shutil.copytree("photos", "corrected")
    if "reviews" in arguments:
        texts = {"text": ["good", "a bad one", "fine"] * 20, "label": [1, 0, 1] * 20}
        datasets.Dataset.from_dict(texts).save_to_disk("reviews")
    if "FILE" in arguments:
        (workplace / "FILE").write_text(blocks("docs/runs.md", "toml")[0])
    if arguments[0] == "train" and "--help" not in arguments:
        # nothing is downloaded in a test: of these commands only the options are checked
        arguments += ["--help"] if "--download" in command or "cifar" in command else ["--steps", "2"]
    if arguments[0] == "fit":
        # what is tried otherwise takes minutes
        arguments += ["--steps", "2"] if "--candidates" in arguments else ["--steps", "2", "--candidates", "gce"]
    if arguments[0] == "sweep":
        # those that made results take minutes: their options are checked
        arguments += ["--help"] if "cifar" in command or "--seeds 5" in command else ["--steps", "2", "--seeds", "1"]
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


@pytest.mark.filterwarnings("ignore")
def test_python_of_the_page_on_loops_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope: dict = {}
    for code in blocks("docs/own-loop.md", "python"):
        if "ReweightClassifier" in code:
            # tests/test_sklearn.py runs these
            continue
        exec(compile(code, "docs/own-loop.md", "exec"), scope)
        if "weights" in scope and "wrong" not in scope:
            scope["wrong"] = scope["noisy"][100:] != scope["y"][100:]
            assert scope["weights"][scope["wrong"]].mean() < 0.7 * scope["weights"][~scope["wrong"]].mean()
            assert 0.5 < scope["figures"]["train_accuracy"] < 0.9
    assert scope["trainer"].reweighter.samples()["visits"].tolist() == [1] * 40


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


class Decoupling(MethodSuite):
    name = "decoupling"


class Poly(LossSuite):
    name = "poly"


class NextClass(NoiseSuite):
    name, argument, wrong_arguments = "next-class", "0.3", ("many", "2", "-1")


class OneLayer(ModelSuite):
    name = "one-layer"


class Curves(RecordSuite):
    kind, name = "observer", "curves"


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        (suite, name)
        for suite in (Jitter, Again, Decoupling, Poly, NextClass, OneLayer, Curves)
        for name in contract_of(suite)
    ],
)
def test_the_documented_plugins_keep_the_contract(suite, name, documented_plugins):
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


def test_the_documented_networks_learn_from_the_examples_on_which_they_disagree(documented_plugins):
    parts = tiny_parts("decoupling", model="mlp")
    second = parts.hooks.networks["second"].model[1].weight
    before = second.clone()
    run_steps(parts, 1)
    assert not torch.equal(second, before)
    weights = parts.step.samples.tensors["last_weight"][parts.step.samples.tensors["visits"] > 0]
    share = parts.hooks.finish_epoch(1)["disagreement"]
    assert 0 < share < 1
    # 0 where they agree; the others of a batch of 10 share its weight
    assert (weights == 0).float().mean().item() == pytest.approx(1 - share, abs=1e-6)
    assert weights.sum().item() == pytest.approx(len(weights))


def test_the_documented_loss_is_poly_1(documented_plugins):
    parts = tiny_parts("erm", model="mlp", loss="poly", poly_epsilon=2.0)
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 4
    p = logits.softmax(1)[torch.arange(5), labels]
    found = parts.hooks.losses(Batch(torch.arange(5), torch.zeros(5, 1), labels), logits)
    torch.testing.assert_close(found, -p.log() + 2 * (1 - p))


def test_the_documented_observer_writes_the_figures_that_it_is_told_and_forgets_on_a_resume(
    workplace, documented_plugins
):
    options = [
        "--data",
        "bars",
        "--epochs",
        "3",
        "--checkpoint-every",
        "2epochs",
        "--curves-figure",
        "lr",
        "--out",
        "run",
    ]
    assert run("train", "--observe", "curves", *options) == 0
    curves = workplace / "run" / "curves.csv"
    first = curves.read_text()
    assert [line.split(",")[0] for line in first.splitlines()] == ["epoch", "1", "2", "3"]
    # as it was interrupted in its third epoch
    (workplace / "run" / "summary.json").unlink()
    shutil.rmtree(max((workplace / "run" / "checkpoints").glob("step-*")))
    assert run("resume", "run") == 0
    assert curves.read_text() == first


def test_the_documented_dataset_reads_new_images(workplace, documented_plugins):
    assert run("train", "--data", "bars", "--out", "run") == 0
    images = np.random.RandomState(1).randint(0, 200, (6, 1, 8, 8)).astype(np.uint8)
    images[::2, :, 3:5] += 55
    np.save("new.npy", images)
    assert run("predict", "run", "new.npy", "--csv", "out.csv") == 0
    lines = (workplace / "out.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in lines] == [[f"new.npy:{i}", ("bar", "plain")[i % 2]] for i in range(6)]


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
    page = (ROOT / "docs/plugins.md").read_text()
    assert set(re.findall(r"^\| `(\w+\(.*?\))` \|", page, re.M)) == specified
    (sentence,) = re.findall(r"Of (`plan_stages`.*?)\s+one\s+result\s+is\s+used", page, re.S)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(ONE_RESULT)


def test_documented_fields_of_the_context_are_those_that_it_has():
    (table,) = re.findall(r"\| field \| \|\n\| --- \| --- \|\n(.*?)\n\n", (ROOT / "docs/plugins.md").read_text(), re.S)
    documented = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert documented == {field.name for field in attrs.fields(Context)}
