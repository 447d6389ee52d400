"""Sweeps and reproductions from end to end, on scikit-learn's digits."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import submitit

from reweight_experiments import slurm
from reweight_experiments.progress import last_metrics

TINY = ["--steps", "3", "--device", "cpu", "--meta-size", "20"]
TIMINGS = {"seconds", "made_with", "command", "folder"}


@pytest.fixture
def reweight(reweight, tmp_path, monkeypatch):
    """Run the program in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return reweight


def figures(folder):
    content = json.loads((folder / "results.json").read_text())
    return [
        {name: value for name, value in cell.items() if name not in (*TIMINGS, "runs")}
        | {"runs": [{n: v for n, v in run.items() if n not in TIMINGS} for run in cell["runs"]]}
        for cell in content["cells"]
    ]


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/seed-*/**/*") if path.is_file()}


def test_a_sweep_goes_on_where_it_was_left(reweight, tmp_path):
    sweep = ["sweep", "--methods", "erm,gdw", "--eta-w", "50", "--noise", "uniform:0.4", *TINY, "--out", "s"]
    first = reweight(*sweep)
    assert first.status == 0, first.err
    assert first.out.splitlines()[0].startswith("erm-digits/seed-0  test 0.")
    before = times(tmp_path / "s")
    config = json.loads((tmp_path / "s/gdw-digits/seed-0/config.json").read_text())
    assert config["options"]["eta_w"] == 50.0
    assert [(cell["method"], cell["n"]) for cell in figures(tmp_path / "s")] == [("erm", 1), ("gdw", 1)]
    assert figures(tmp_path / "s")[0]["test_accuracy"]["sd"] is None
    content = json.loads((tmp_path / "s/results.json").read_text())
    assert content["command"].startswith("reweight sweep --methods erm,gdw --data digits")
    assert content["made_with"][0]["versions"]["torch"]
    assert content["made_with"][0]["runs"] == 2

    # one run did not finish: it goes on from its checkpoint, and two at a time give the same numbers
    numbers = figures(tmp_path / "s")
    (tmp_path / "s/gdw-digits/seed-0/summary.json").unlink()
    kept = {path: when for path, when in before.items() if "erm-digits" in path.parts}
    again = reweight(*sweep, "--jobs", "2")
    assert again.status == 0, again.err
    assert "1 of 2 runs are finished already" in again.out
    after = times(tmp_path / "s")
    assert {path: after[path] for path in kept} == kept
    gone_on = tmp_path / "s/gdw-digits/seed-0"
    assert after[gone_on / "summary.json"] > before[gone_on / "summary.json"]
    assert after[gone_on / "config.json"] == before[gone_on / "config.json"]
    assert figures(tmp_path / "s") == numbers

    whole = times(tmp_path / "s")
    assert reweight(*sweep).status == 0
    assert times(tmp_path / "s") == whole
    other = reweight(*sweep, "--lr", "0.2")
    assert other.status == 2
    assert "erm-digits/seed-0: is finished, with lr 0.1 where 0.2 is asked for" in other.err
    assert times(tmp_path / "s") == whole


def test_runs_side_by_side_give_the_same_numbers_and_survive_a_failing_one(reweight, tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(
        "import os\nfrom torch import nn\n\n\ndef crash(input_shape, num_classes):\n    os.abort()\n\n\n"
        "def linear(input_shape, num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    both = reweight(
        "sweep", "--methods", "erm", "--vary", "model=nets:crash,nets:linear", *TINY, "--out", "b", "--jobs", "2"
    )
    assert both.status == 1
    assert "failed: erm-digits-model=nets-crash/seed-0: killed by SIGABRT (see b/" in both.out
    assert [cell["n"] for cell in figures(tmp_path / "b")] == [0, 1]
    alone = reweight("train", "--method", "erm", "--model", "nets:linear", *TINY, "--seed", "0", "--out", "a", "--json")
    (made,) = figures(tmp_path / "b")[1]["runs"]
    assert made["test_accuracy"] == json.loads(alone.out)["test_accuracy"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_runs_and_keeps_finished_ones(number, status, tmp_path):
    command = [sys.executable, "-m", "reweight_core", "sweep", "--methods", "erm", "--seeds", "2", "--out", "s"]
    done = subprocess.Popen(
        [*command, "--epochs", "100000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell lets the jobs behind it ignore interrupts, and their children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "s/erm-digits/seed-0"
    deadline = time.monotonic() + 60
    while last_metrics(metrics) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    done.send_signal(number)
    _, err = done.communicate(timeout=60)
    assert done.returncode == status
    assert err.strip() == "interrupted; finished runs are kept in s; the same command goes on from there"
    assert list(metrics.glob("checkpoints/step-*"))
    lines = (metrics / "metrics.jsonl").read_bytes()
    time.sleep(0.3)
    assert (metrics / "metrics.jsonl").read_bytes() == lines, "the run goes on"


def worker(folder, *arguments):
    """Start a sweep that takes another for dead after two seconds."""
    code = (
        "from reweight_experiments import leases\nleases.RENEW_SECONDS, leases.LAPSE_SECONDS = 0.2, 2\n"
        "from reweight_core.cli.main import main\nmain()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, "sweep", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_on_one_folder_one_is_killed_and_the_other_makes_the_rest(tmp_path):
    # its steps take a while, and it tells which commands begin runs
    (tmp_path / "slow.py").write_text(
        "import sys, time\nfrom torch import nn\n\nopen('begun', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n\n\n"
        "class Slow(nn.Flatten):\n    def forward(self, images):\n        time.sleep(0.02)\n"
        "        return super().forward(images)\n\n\n"
        "def net(input_shape, num_classes):\n    return nn.Sequential(Slow(), nn.Linear(64, num_classes))\n"
    )
    sweep = [
        "--methods",
        "erm",
        "--seeds",
        "2",
        "--model",
        "slow:net",
        "--epochs",
        "4",
        "--checkpoint-every",
        "1epochs",
    ]
    sweep += ["--device", "cpu", "--out", "s"]
    first, second = (worker(tmp_path, *sweep) for _ in range(2))
    deadline = time.monotonic() + 60
    while not (begun := list(tmp_path.glob("s/erm-digits/seed-*/checkpoints/step-*"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed = begun[0].parents[1]
    lease = killed.with_name(f"{killed.name}.lease-1").read_text()
    dead, alive = (first, second) if f" {first.pid} " in lease else (second, first)
    dead.kill()
    _, err = alive.communicate(timeout=100)
    dead.communicate()
    assert alive.returncode == 0, err
    trainings = [line.split() for line in (tmp_path / "begun").read_text().splitlines()]
    made = sorted(words[words.index("--out") + 1] for words in trainings if words[0] == "train")
    assert made == [f"s/erm-digits/seed-{seed}" for seed in range(2)], "each run is begun once"
    assert [words for words in trainings if words[0] == "resume"] == [["resume", str(killed.relative_to(tmp_path))]]
    (cell,) = figures(tmp_path / "s")
    assert cell["n"] == 2
    assert [run["seed"] for run in cell["runs"]] == [0, 1]
    assert all("test_accuracy" in run for run in cell["runs"])
    assert not list(tmp_path.rglob("*.lease-*"))


def test_jobs_of_a_scheduler_share_the_runs(reweight, tmp_path, monkeypatch):
    # jobs of Slurm are submitted in the same way
    monkeypatch.setattr(slurm, "executor_for", lambda logs, asked: submitit.LocalExecutor(logs))
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.2)
    sweep = ["sweep", "--methods", "erm", "--seeds", "2", *TINY, "--out", "s"]
    done = reweight(*sweep, "--launcher", "slurm", "--slurm-jobs", "2", "--slurm", "time=10")
    assert done.status == 0, done.err
    assert [(cell["method"], cell["n"]) for cell in figures(tmp_path / "s")] == [("erm", 2)]
    assert len([line for line in done.out.splitlines() if re.match(r"erm-digits/seed-.  test 0\.", line)]) == 2
    assert len(list(tmp_path.glob("s/slurm/*.out"))) == 2
    before = times(tmp_path / "s")
    assert "2 of 2 runs are finished already" in reweight(*sweep).out
    assert times(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sweep --out s", "--methods A,B is missing"),
        ("sweep --methods erm", "Missing option '--out'"),
        ("sweep --methods erm,gwd --out s", "did you mean 'gdw'?"),
        ("sweep --methods gdw --etaw 3 --out s", "--eta-w"),
        ("sweep --methods erm --eta-w 3 --out s", "--eta-w is an option of --method gdw, which this run does not use"),
        ("sweep --methods erm,gdw --eta-w -3 --out s", "gdw-digits: --eta-w must be >= 0"),
        ("sweep --methods gdw --vary with=none,mixup --out s", "gdw-digits-with=mixup: --with mixup: method 'gdw'"),
        ("sweep --methods erm --vary noise=none,unifrom:0.4 --out s", "did you mean 'uniform'?"),
        ("sweep --methods erm --seeds 0 --out s", "'--seeds'"),
        ("reproduce", "give the NAME of a table"),
        ("reproduce gdw-unifrm", "did you mean 'gdw-uniform'?"),
        (
            "reproduce gdw-uniform --only erm --eta-w 3",
            "--eta-w is an option of --method gdw, which this run does not use",
        ),
        ("reproduce gdw-uniform --epochs 0", "erm-cifar10-0: --epochs must be > 0"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(reweight, tmp_path, arguments, message):
    done = reweight(*arguments.split())
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_missing_data_are_a_failure_of_their_cells_before_any_run(reweight, tmp_path):
    done = reweight("reproduce", "gdw-flip", "--only", "erm", "--cells", "*-cifar10-?0", "--out", "r")
    assert done.status == 1
    assert "failed: erm-cifar10-20/seed-0, erm-cifar10-40/seed-0: " in done.out
    assert "data_batch_1 is missing; give --download" in done.out
    assert not list(tmp_path.glob("r/*/seed-*"))
    assert [cell["n"] for cell in figures(tmp_path / "r")] == [0, 0]


def test_the_data_of_a_file_count(reweight, tmp_path):
    (tmp_path / "f.toml").write_text('data = "cifar10"\n[cifar10]\ndata-root = "nowhere"\n')
    done = reweight("sweep", "--config", "f.toml", "--methods", "erm", "--out", "s")
    assert done.status == 1
    assert "failed: erm-cifar10/seed-0: " in done.out
    assert "nowhere" in done.out


@pytest.mark.parametrize("page", ["docs/sweeps.md", "packages/experiments/README.md"])
def test_the_documented_python_makes_a_table(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / page).read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    # each run is a process, which takes seconds to start
    short = re.sub(r"seeds=2, jobs=2, epochs=\d+", "seeds=1, jobs=2, steps=2, device='cpu'", code)
    short = short.replace('[None, "uniform:0.4"]', '["uniform:0.4"]')
    assert short != code
    exec(compile(short, page, "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed
    assert all(0 < float(mean) < 1 for *_, mean in printed)
    assert list(tmp_path.glob("*/results.md"))
