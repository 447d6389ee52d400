import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from reweight_core import InterruptedRun
from reweight_experiments import jobs
from reweight_experiments.jobs import Job, Processes, python_command, stopped_by_signals


@pytest.fixture
def job(tmp_path):
    def make(name, code):
        return Job(name, (sys.executable, "-S", "-c", code), tmp_path / f"{name}.log")

    return make


def run_all(several, watch=lambda: None):
    """Run jobs side by side to their end; give how they ended."""
    ended = []
    with Processes(len(several)) as processes:
        for one in several:
            processes.start(one)
        while len(ended) < len(several):
            time.sleep(0.01)
            ended += processes.ended()
            watch()
        assert not processes.running
    return ended


def test_a_job_that_fails_takes_no_other_with_it(job):
    codes = {
        "good": "pass",
        "own words": "import sys; sys.stderr.write('Warning: hot\\nError: too hot\\n'); sys.exit(2)",
        "traceback": "{}['missing']",
        "silent": "raise SystemExit(3)",
        "killed": "import os; os.kill(os.getpid(), 9)",
        "late": "import time; time.sleep(0.1)",
    }
    ended = run_all([job(name, code) for name, code in codes.items()])
    assert {one.job.name: one.error for one in ended} == {
        "good": None,
        "own words": "too hot",
        "traceback": "KeyError: 'missing'",
        "silent": "exit status 3",
        "killed": "killed by SIGKILL (is the memory full?)",
        "late": None,
    }


def test_a_program_that_does_not_exist_is_a_failed_job(tmp_path):
    (one,) = run_all([Job("none", (str(tmp_path / "nothing"),), tmp_path / "log")])
    assert "nothing" in one.error


def test_a_job_that_is_stopped_has_not_ended(job):
    first, second = job("first", "import time; time.sleep(60)"), job("second", "pass")
    ended = []
    with Processes(2) as processes:
        processes.start(first)
        processes.start(second)
        processes.stop([first])
        while processes.running:
            ended += processes.ended()
            time.sleep(0.01)
    assert [one.job for one in ended] == [second]


def test_output_goes_to_the_log(job):
    first = job("first", "print('words')")
    run_all([first])
    assert first.log.read_text() == "words\n"


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stop", "raised"),
    [(interrupt, KeyboardInterrupt), (lambda: os.kill(os.getpid(), signal.SIGTERM), InterruptedRun)],
)
def test_an_interrupt_or_a_signal_stops_what_runs(job, tmp_path, stop, raised):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def watch():
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            stop()

    before = signal.getsignal(signal.SIGTERM)
    started = time.monotonic()
    with pytest.raises(raised), stopped_by_signals():
        run_all([job("sleeper", code)], watch)
    assert time.monotonic() - started < 10
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("at_once", "of_processes", "set_before", "expected"),
    [
        (1, 1, None, "-"),
        (2, 1, None, "4"),
        (3, 1, None, "2"),
        (20, 1, None, "1"),
        (2, 1, "7", "7"),
        (2, 2, None, "2"),
        (1, 2, None, "4"),
        (2, 2, "7", "7"),
    ],
)
def test_each_process_has_its_share_of_the_threads(job, monkeypatch, at_once, of_processes, set_before, expected):
    monkeypatch.setattr(jobs, "usable_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_before:
        monkeypatch.setenv("OMP_NUM_THREADS", set_before)
    one = job("one", "import os; print(os.environ.get('OMP_NUM_THREADS', '-'))")
    one = attrs.evolve(one, processes=of_processes)
    with Processes(at_once) as processes:
        processes.start(one)
        while processes.running:
            processes.ended()
            time.sleep(0.01)
    assert one.log.read_text().strip() == expected


def test_a_job_has_its_own_variables_beside_those_of_this_process(job, monkeypatch):
    monkeypatch.setenv("SEEN", "both")
    monkeypatch.setenv("GPU", "0,1")
    one = job("one", "import os; print(os.environ['SEEN'], os.environ['GPU'])")
    run_all([attrs.evolve(one, environment={"GPU": "1"})])
    assert one.log.read_text() == "both 1\n"


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.stdout.flush(); os._exit(0)"])
def test_a_run_ends_with_the_process_that_started_it(tmp_path, monkeypatch, end):
    if sys.platform != "linux":
        assert python_command(["train"])[1:] == ("-P", "-m", "reweight_core", "train")
        return
    tied = python_command(["X"])
    code = f"import time; open({str(tmp_path / 'ready')!r}, 'w').close(); time.sleep(60)"
    # the process that starts it is another than this one
    starter = (
        "import os, subprocess, sys, time\n"
        f"command = [*{tied[:4]!r}, str(os.getpid()), sys.executable, '-S', '-c', {code!r}]\n"
        "print(subprocess.Popen(command).pid)\n"
        f"while not os.path.exists({str(tmp_path / 'ready')!r}): time.sleep(0.01)\nsys.stdout.flush()\n{end}"
    )
    child = int(subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True).stdout)
    deadline = time.monotonic() + 10
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(child)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_whose_starter_has_ended_before_does_not_begin(tmp_path):
    if sys.platform != "linux":
        return
    *tied, _, python = python_command([])[:6]
    done = subprocess.run([*tied, "1", python, "-c", f"open({str(tmp_path / 'begun')!r}, 'w')"])
    assert done.returncode == 0
    assert not (tmp_path / "begun").exists()
