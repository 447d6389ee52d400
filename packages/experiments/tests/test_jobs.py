import os
import signal
import sys
import time

import pytest

from reweight_experiments import jobs
from reweight_experiments.jobs import Job, run_all, stopped_by_signals


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)


@pytest.fixture
def job(tmp_path):
    def make(name, code):
        return Job(name, (sys.executable, "-S", "-c", code), tmp_path / f"{name}.log")

    return make


def nobody(ended, running):
    """Watch nothing."""


def test_a_job_that_fails_takes_no_other_with_it(job):
    codes = {
        "good": "pass",
        "own words": "import sys; sys.stderr.write('Warning: hot\\nError: too hot\\n'); sys.exit(2)",
        "traceback": "{}['missing']",
        "silent": "raise SystemExit(3)",
        "killed": "import os; os.kill(os.getpid(), 9)",
        "late": "import time; time.sleep(0.1)",
    }
    ended = run_all([job(name, code) for name, code in codes.items()], 2, nobody)
    assert {one.job.name: one.error for one in ended} == {
        "good": None,
        "own words": "too hot",
        "traceback": "KeyError: 'missing'",
        "silent": "exit status 3",
        "killed": "killed by SIGKILL (is the memory full?)",
        "late": None,
    }


def test_a_program_that_does_not_exist_is_a_failed_job(tmp_path):
    (one,) = run_all([Job("none", (str(tmp_path / "nothing"),), tmp_path / "log")], 1, nobody)
    assert "nothing" in one.error


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_so_many_run_at_once_and_not_more(job, at_once):
    seen = []
    run_all(
        [job(str(i), "import time; time.sleep(0.05)") for i in range(4)],
        at_once,
        lambda ended, running: seen.append((len(ended), len(running))),
    )
    assert max(running for _, running in seen) <= at_once
    assert seen[-1] == (4, 0)
    assert at_once == 1 or any(running > 1 for _, running in seen)


def test_output_goes_to_the_log(job):
    first = job("first", "print('words')")
    run_all([first], 1, nobody)
    assert first.log.read_text() == "words\n"


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stop", "raised"),
    [(interrupt, KeyboardInterrupt), (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit)],
)
def test_an_interrupt_or_a_signal_stops_what_runs(job, tmp_path, stop, raised):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def watch(ended, running):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            stop()

    before = signal.getsignal(signal.SIGTERM)
    started = time.monotonic()
    with pytest.raises(raised), stopped_by_signals():
        run_all([job("sleeper", code)], 1, watch)
    assert time.monotonic() - started < 10
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("at_once", "set_before", "expected"),
    [(1, None, "-"), (2, None, "4"), (3, None, "2"), (20, None, "4"), (2, "7", "7")],
)
def test_each_process_has_its_share_of_the_threads(job, monkeypatch, at_once, set_before, expected):
    monkeypatch.setattr(jobs, "usable_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_before:
        monkeypatch.setenv("OMP_NUM_THREADS", set_before)
    several = [job(str(i), "import os; print(os.environ.get('OMP_NUM_THREADS', '-'))") for i in range(min(at_once, 3))]
    if at_once == 20:
        several = several[:2]
    run_all(several, at_once, nobody)
    assert {one.log.read_text().strip() for one in several} == {expected}
