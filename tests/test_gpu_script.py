"""The script for a machine with a GPU: all of it that a machine without one can do."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import torch

from reweight_core import configure, registry
from reweight_core.measure import bench, check_grad
from reweight_experiments.claims import Outcome

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _script(monkeypatch):
    """Let the script's modules be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A copy of the tree, and a Python that has what the packages require, but none of them."""
    folder = tmp_path_factory.mktemp("bare")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "tests")
    for name in ("benchmarks", "packages"):
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=unwanted)
    others = folder / "others"
    others.mkdir()
    for place in (Path(place) for place in sys.path if place.endswith("-packages")):
        for found in place.iterdir():
            ours = found.name.startswith(("reweight", "_editable_impl_reweight", "__editable__"))
            if not ours and found.suffix != ".pth" and not (others / found.name).exists():
                (others / found.name).symlink_to(found)
    python = folder / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", python], check=True)
    (place,) = python.glob("lib/python*/site-packages")
    (place / "others.pth").write_text(f"{others}\n")
    return folder / "tree", python / "bin" / "python"


def call(python, *command):
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "REWEIGHT_PLUGINS")}
    return subprocess.run(
        [str(part) for part in (python, *command)], cwd="/", env=kept, capture_output=True, text=True, timeout=600
    )


def test_everything_is_tried_on_the_cpu_from_a_bare_tree_and_then_not_again(bare, tmp_path):
    tree, python = bare
    assert "No module named 'reweight_core'" in call(python, "-c", "import reweight_core").stderr
    command = tree / "benchmarks" / "gpu.py", "--device", "cpu", "--tiny", "--out", tmp_path
    done = call(python, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads((tmp_path / "results.json").read_text())
    assert {outcome["kind"] for outcome in outcomes.values()} == {"machine", "capture", "bench", "check-grad", "runs"}
    assert {outcome["status"] for outcome in outcomes.values()} == {"done"}

    # every entry point of the tree, though nothing is installed
    from gpu_parts import tree as source

    declared = [e for p in source.projects().values() for group in p.get("entry-points", {}).values() for e in group]
    assert outcomes["machine"]["figures"]["plugins"] == len(declared) > 50
    assert outcomes["machine"]["figures"]["broken"] == []

    captures = outcomes["capture"]["figures"]
    assert {"method gdw", "method fsr", "fsr with everything"} <= {row["subject"] for row in captures}
    assert all(row["verdict"] == "equal" and row["replays"] >= 2 for row in captures), captures
    (run,) = outcomes["runs: gdw, uniform"]["figures"]
    assert (run["method"], run["epochs_done"], run["finished"]) == ("gdw", 2, True)
    with tarfile.open(tmp_path / "runs.tar.gz") as archive:
        packed = {Path(name).name for name in archive.getnames()}
    assert {"summary.json", "metrics.jsonl", "config.json"} <= packed
    assert not any(name.endswith(".safetensors") for name in packed)
    text = (tmp_path / "report.md").read_text()
    assert "Nothing so far." in text and "| method gdw | equal |" in text and "| gdw jvp | no |" in text

    again = call(python, *command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"0 of {len(outcomes)} parts to do")
    assert json.loads((tmp_path / "results.json").read_text()) == outcomes


def test_where_there_is_no_such_device_nothing_else_is_tried(bare, tmp_path):
    tree, python = bare
    done = call(python, tree / "benchmarks" / "gpu.py", "--device", "cuda:99", "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --device cuda:99: nothing can be tried (")
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["machine"]
    assert "- machine: " in (tmp_path / "report.md").read_text()


def test_all_methods_components_and_losses_are_subjects_whose_options_there_are():
    from gpu_parts.capture import configured
    from gpu_parts.subjects import MAIN, subjects

    found = subjects(on_gpu=True)
    assert tuple(found)[: len(MAIN)] == MAIN
    for kind in ("method", "component", "loss"):
        assert {f"{kind} {name}" for name in registry.names(kind)} <= set(found)
    for options in found.values():
        options = {name: value for name, value in options.items() if name != "files"}
        config = configured(options, "cpu", tiny=False)
        assert config.method == options["method"] and config.graph == "off"


def test_a_part_of_the_full_plan_says_nothing_that_the_program_does_not_understand(tmp_path, monkeypatch, reweight):
    from gpu_parts.plan import Setting, plan

    benches, checked, swept = [], [], []
    monkeypatch.setattr(bench, "run", lambda setting, subjects, n: benches.append((setting, subjects)) or [])
    monkeypatch.setattr("reweight_core.machine.device.resolve_device", torch.device)
    monkeypatch.setattr(check_grad, "check", lambda config: checked.append(config) or [])

    @contextmanager
    def not_made(runs, out, *others):
        # they were planned, and every option of each was checked
        swept.extend(runs)
        out.mkdir(parents=True)
        yield Outcome({run.name: "not made" for run in runs}, [])

    monkeypatch.setattr("reweight_experiments.sweep.carry_out", not_made)
    parts = plan(Setting("cuda", tiny=False, work=tmp_path, images=tmp_path, jobs=4))
    assert [part.kind for part in parts][:2] == ["machine", "capture"]
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        if part.arguments[:2] == ("-m", "reweight_core"):
            done = reweight(*part.arguments[2:])
            assert done.status == (1 if part.kind == "runs" else 0), done.err
    assert {setting.precision for setting, _ in benches} == {"fp32", "tf32", "bf16"}
    assert {setting.model for setting, _ in benches} == {"resnet32", "wrn-28-10"}
    assert all(bench.Subject("plain", graph=True) in subjects for _, subjects in benches)
    assert {subject.method for _, subjects in benches for subject in subjects} == {"plain", *registry.names("method")}
    assert {(config.method, config.precision) for config in checked} == {
        (method, precision) for method in ("gdw", "l2rw", "mwnet") for precision in ("tf32", "bf16")
    }
    first = swept[0].config
    assert (first.method, first.noise, first.seed, first.epochs, first.meta_size) == ("gdw", "uniform:0.4", 0, 80, 1000)
    fsr = next(run.config for run in swept if run.config.method == "fsr")
    assert (fsr.epochs, fsr.model, fsr.with_, fsr.meta_size) == (127, "resnet32", ("mixup", "relabel", "ema"), 0)
    assert {run.config.imb for run in swept} == {None, 0.01}
    assert not [part for part in plan(Setting("cuda", False, tmp_path, None, 4)) if part.kind == "runs"]


def python_part(name, code, **others):
    from gpu_parts.parts import Part

    return Part(name, "bench", ("-c", code), **{"least": 0, **others})


def outcomes_of(tmp_path, parts, seconds=60.0, at_once=2):
    from gpu_parts.parts import run_parts

    told = {}
    deadline = time.monotonic() + seconds
    run_parts(
        parts, deadline, at_once, os.environ, tmp_path / "logs", lambda part, found: told.update({part.name: found})
    )
    return told


def test_a_part_that_fails_or_hangs_takes_no_other_with_it(tmp_path):
    parts = [
        python_part("crash", "import os; os.abort()"),
        python_part("wrong", "print('said'); raise ValueError('this')"),
        python_part("hang", "import time; time.sleep(60)", seconds=0.5),
        python_part("words", "print('no json')"),
        python_part("good", "print('[1]')"),
    ]
    told = outcomes_of(tmp_path, parts)
    assert list(told) == ["crash", "wrong", "hang", "words", "good"]
    assert [outcome["status"] for outcome in told.values()] == ["failed"] * 4 + ["done"]
    assert told["crash"]["error"] == "exit status -6" and told["hang"]["error"] == "took more than 0.5 seconds"
    assert told["wrong"]["error"].splitlines()[0] == "said"
    assert told["wrong"]["error"].splitlines()[-1] == "ValueError: this"
    assert told["good"]["figures"] == [1] and told["good"]["error"] is None


BEATS = """
import sys, time
while True:
    print("beat", file=open(sys.argv[1], "a"))
    time.sleep(0.05)
"""


def test_what_runs_at_the_deadline_is_stopped_with_its_children_and_what_cannot_be_finished_not_begun(tmp_path):
    beats = tmp_path / "beats"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BEATS!r}, {str(beats)!r}])"
    told = outcomes_of(tmp_path, [python_part("long", code, seconds=None), python_part("later", "", least=30)], 3.0)
    assert list(told) == ["long"] and told["long"]["status"] == "stopped"
    size = beats.stat().st_size
    time.sleep(0.3)
    assert beats.stat().st_size == size > 0


MEET = """
import pathlib, time
pathlib.Path({here!r}).touch()
while not pathlib.Path({there!r}).exists():
    time.sleep(0.05)
print("1")
"""


def test_parts_that_may_run_beside_each_other_do_and_others_wait(tmp_path):
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    parts = [
        python_part("one", MEET.format(here=one, there=other), beside=True, seconds=20),
        python_part("other", MEET.format(here=other, there=one), beside=True, seconds=20),
        python_part("alone", "print('1')"),
    ]
    told = outcomes_of(tmp_path, parts)
    assert [outcome["status"] for outcome in told.values()] == ["done"] * 3
    assert list(told)[-1] == "alone"


def test_what_failed_is_done_again_once_the_code_has_changed_and_what_was_stopped_always(tmp_path):
    from gpu_parts.findings import Findings

    parts = [python_part(name, "") for name in ("done", "failed", "odd", "stopped", "new")]
    findings = Findings(tmp_path, "before")
    outcome = {"status": "done", "figures": [], "error": None, "seconds": 1.0}
    odd = [{"method": "gdw", "strategy": "jvp", "error": "cannot be recorded"}]
    findings.note(parts[0], outcome)
    findings.note(parts[1], outcome | {"status": "failed", "error": "why\n"})
    findings.note(parts[2], outcome | {"figures": odd})
    findings.note(parts[3], outcome | {"status": "stopped", "figures": None})
    assert [part.name for part in Findings(tmp_path, "before").left(parts)] == ["stopped", "new"]
    assert [part.name for part in Findings(tmp_path, "after").left(parts)] == ["failed", "odd", "stopped", "new"]


def row(method, seconds, graph=True, floor=1.0, strategy=None):
    return {
        "method": method,
        "strategy": strategy,
        "graph": graph,
        "seconds_per_step": seconds,
        "ratio_to_plain": seconds / 0.010,
        "floor": floor,
        "peak_bytes": 1_000_000,
    }


def test_the_goals_are_judged_by_the_figures_and_failures_come_first():
    from gpu_parts.report import report, with_floors

    rows = [row("plain", 0.010, graph=False), row("plain", 0.002), row("erm", 0.0021)]
    rows += [row("gdw", 0.030, graph=False, floor=4, strategy="jvp"), row("gdw", 0.009, floor=4, strategy="jvp")]
    assert [one["ratio_to_floor"] for one in with_floors(rows)] == pytest.approx([None, None, 1.05, None, 1.125])
    of_run = {"method": "gdw", "with": [], "noise": "uniform:0.4", "imb": None, "seed": 0, "model": "resnet32"}
    of_run |= {"epochs_done": 40, "seconds": 150.0, "finished": False, "precision": "tf32", "lookahead": "jvp"}
    capture = {"subject": "method crust", "verdict": "error", "error": "it cannot be"}
    common = {"status": "done", "error": None}
    outcomes = {
        "capture: method crust": {"kind": "capture", "figures": [capture], **common},
        "bench: resnet32 tf32": {"kind": "bench", "figures": rows, **common},
        "runs: gdw, uniform": {"kind": "runs", "figures": [of_run], **common},
    }
    text = report(outcomes, ["check-grad: gdw tf32"])
    assert "(ResNet-32): yes, 0.90 times its time (bench: resnet32 tf32)." in text
    assert "a recorded plain step: **no**, gdw jvp 1.12 (bench: resnet32 tf32)." in text
    assert "at most 4 minutes: **no**, 5.0 minutes by 40 epochs." in text
    assert "- capture: method crust: method crust: it cannot be" in text
    assert text.index("it cannot be") < text.index("## The goals") < text.index("| gdw jvp | yes | 9.00 | 0.90 |")
    assert "- check-grad: gdw tf32" in text[text.index("## Left to do") :]
    assert "| memory MB | memory x plain |" in text and "\nfloor: " in text and "\ndifference: " in text


def test_replays_without_a_gpu_are_said_to_be_those_of_a_stand_in():
    from gpu_parts.report import report

    figures = dict.fromkeys(("processor", "torch", "driver", "cuda", "python"), "x") | {"plugins": 1, "broken": []}
    for gpu in ({}, {"gpu": "H", "gigabytes": 80, "capability": "9.0"}):
        machine = {"kind": "machine", "figures": figures | gpu, "status": "done", "error": None}
        assert ("those of a stand-in" in report({"machine": machine}, [])) == (not gpu)


def test_a_difference_is_measured_against_that_of_equal_trainings(monkeypatch):
    from gpu_parts import capture

    def compared(*values):
        trained = iter([capture.Trained({"w": torch.tensor([float(v)])}, 4, 1.0) for v in values])
        monkeypatch.setattr(capture, "train", lambda config, data, records: next(trained))
        return capture.compare(None, None)

    assert compared(1, 1, 1)["verdict"] == "equal"
    different = compared(1, 1, 1.5)
    assert (different["verdict"], different["difference"], different["worst"]) == ("different", 0.5, "w")
    assert compared(1, 1.25, 1.5, 2, 2)["verdict"] == "equal"
    assert compared(1, 1.25, 1.5, 2, 2.5)["verdict"] == "within"
    assert compared(1, 1.25, 8, 2, 2.5)["verdict"] == "different"
    assert compared(1, 1, float("nan"))["difference"] == float("inf")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("kind", ["tar.xz", "zip"])
def test_images_are_unpacked_once_and_found_in_the_folder_that_holds_them(tmp_path, kind):
    from gpu_parts.images import image_folder

    for part in ("train", "test"):
        (tmp_path / "photos" / part / "cat").mkdir(parents=True)
        (tmp_path / "photos" / part / "cat" / "1.png").write_bytes(b"1")
    file = tmp_path / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for path in (tmp_path / "photos").rglob("*.png"):
                archive.write(path, path.relative_to(tmp_path))
    else:
        with tarfile.open(file, "w:xz") as archive:
            archive.add(tmp_path / "photos", "photos")
    root = image_folder(file, tmp_path / "work")
    assert root == tmp_path / "work" / "images" / "photos"
    assert (root / "train" / "cat" / "1.png").read_bytes() == b"1"
    file.write_bytes(b"")
    assert image_folder(file, tmp_path / "work") == root
    assert image_folder(tmp_path / "photos", tmp_path / "other") == tmp_path / "photos"


def test_an_archive_that_would_write_elsewhere_or_holds_no_images_is_refused(tmp_path):
    from gpu_parts.images import image_folder

    (tmp_path / "evil").write_text("evil")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "evil", "../../outside")
    with pytest.raises(click.ClickException, match=r"evil\.tar: cannot be unpacked"):
        image_folder(tmp_path / "evil.tar", tmp_path / "deep" / "work")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "deep" / "work" / "images").exists()
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(tmp_path / "evil", "train/cat")
    with pytest.raises(click.ClickException, match="holds no folders train and test"):
        image_folder(tmp_path / "other.tar", tmp_path / "work")


def test_the_tree_comes_before_what_is_installed(tmp_path, monkeypatch):
    from gpu_parts import tree

    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    paths = tree.surroundings(tmp_path)["PYTHONPATH"].split(os.pathsep)
    assert paths[0] == str(tmp_path) and paths[-1] == "elsewhere"
    assert str(ROOT / "packages" / "core" / "src") in paths
    text = (tmp_path / "reweight_core-0.1.0.dist-info" / "entry_points.txt").read_text()
    assert "[reweight.methods]\nerm = reweight_core.plugins.erm:plugin\n" in text
    assert configure(method="erm").method == "erm"
