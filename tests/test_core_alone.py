"""reweight-core as it is published: its wheel, among its requirements and with nothing else of ours."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "packages" / "core"
OTHERS = sorted(path.name for path in CORE.parent.iterdir() if path != CORE)

SPOTS = """
import numpy as np

from reweight_core import DataPlugin, Dataset, Split


def images(n, rng):
    labels = np.arange(n) % 2
    pixels = rng.randint(0, 100, (n, 1, 6, 6))
    pixels[labels == 1, :, 2:4, 2:4] += 150
    return Split(pixels.astype(np.uint8), labels.astype(np.int64))


def build(config):
    rng = np.random.RandomState(0)
    return Dataset(images(60, rng), images(20, rng), ("plain", "spot"), mean=(50.0,), std=(50.0,))


plugin = DataPlugin(name="spots", summary="a bright spot, or none", build=build)
"""


def call(*command, cwd=None, **environment):
    """Run a program in surroundings that name no other place to import from."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "REWEIGHT_PLUGINS")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"
    call(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, CORE)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def reweight(wheel, tmp_path_factory):
    """Run the installed program in an empty folder."""
    requirements = tmp_path_factory.mktemp("requirements")
    for place in sys.path:
        if Path(place).name == "site-packages":
            for entry in Path(place).iterdir():
                link = requirements / entry.name
                if "reweight" not in entry.name and entry.suffix != ".pth" and not link.exists():
                    link.symlink_to(entry)
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip = sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check"
    call(*pip, "install", "--no-index", "--no-deps", wheel)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(f"{requirements}\n")
    work = tmp_path_factory.mktemp("work")

    def run(*arguments, **settings):
        return call(environment / "bin" / "reweight", *arguments, cwd=work, **settings)

    run.python = python
    return run


@pytest.fixture
def spots(tmp_path):
    """A dataset of somebody else's: a folder with a module and what an installer writes of it."""
    (tmp_path / "spots.py").write_text(SPOTS)
    info = tmp_path / "spots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reweight.data]\nspots = spots:plugin\n")
    return str(tmp_path)


def names_of_ours(text):
    return [name for name in OTHERS if f"reweight-{name}" in text or f"reweight_{name.replace('-', '_')}" in text]


def test_the_wheel_holds_every_file_of_the_source(wheel):
    source = CORE / "src"
    written = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == written


def test_nothing_else_of_ours_is_there(reweight):
    code = "from importlib import metadata; print(*[d.name for d in metadata.distributions()])"
    found = {name for name in call(reweight.python, "-c", code).stdout.split() if name.startswith("reweight")}
    assert found == {"reweight-core"}


def test_the_program_shows_what_it_has(reweight):
    shown = {name: reweight(*name.split()) for name in ("--help", "list", "plugins", "train --help", "bench --help")}
    for done in shown.values():
        assert done.stderr == ""
        assert names_of_ours(done.stdout) == []
    assert "erm" in shown["list"].stdout
    plugins = json.loads(reweight("plugins", "--json").stdout)
    assert {plugin["distribution"] for plugin in plugins} == {"reweight-core"}
    assert {plugin["name"] for plugin in plugins} == {
        entry.name for entry in metadata.distribution("reweight-core").entry_points if entry.group != "console_scripts"
    }
    assert not any(plugin["error"] for plugin in plugins)


def test_a_benchmark_measures_the_methods_that_are_there(reweight):
    done = reweight("bench", "--model", "mlp", "--image", "1x8x8", "--repetitions", "1", "--json")
    assert "reweight" not in done.stderr
    assert {row["method"] for row in json.loads(done.stdout)} == {"plain", "erm"}


def test_it_trains_on_a_dataset_of_somebody_else(reweight, spots):
    options = "--data", "spots", "--model", "mlp", "--epochs", "8", "--batch-size", "10", "--lr", "0.05"
    done = reweight("train", "--method", "erm", *options, "--device", "cpu", "--out", "run", PYTHONPATH=spots)
    assert "warning" not in (done.stdout + done.stderr).lower()
    assert names_of_ours(done.stdout + done.stderr) == []
    tested = reweight("eval", "run", "--json", "--device", "cpu", PYTHONPATH=spots)
    assert json.loads(tested.stdout)["test_accuracy"] > 0.9
