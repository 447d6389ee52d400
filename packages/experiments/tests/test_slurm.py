import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from submitit.core.utils import UncompletedJobError

from reweight_core import UserError, as_values
from reweight_experiments import Watcher, slurm
from reweight_experiments.cells import axes_of, cells_of, plan_runs
from reweight_experiments.slurm import Slurm, Worker, executor_for, make_by_slurm, slurm_of

HOUR = Slurm(2, {"time": "60"})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(slurm, "GRACE_SECONDS", 0.05)


@pytest.fixture
def runs(plugins, tmp_path):
    return plan_runs(cells_of(axes_of("erm", "digits", {}), {}), 0, 3, tmp_path)


def finish(run):
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps({"options": as_values(run.config)}))
    (run.folder / "summary.json").write_text(json.dumps({"seconds": 3.0}))


class FakeJob:
    """A job that does what it is told to, when it is first asked whether it is done."""

    def __init__(self, number, act):
        self.job_id, self._act, self.cancelled = str(number), act, False
        self.paths = SimpleNamespace(stderr=f"{number}.err")
        self._outcome = None

    def done(self):
        if self._outcome is None and self._act is not None:
            self._outcome = self._act()
        return self._outcome is not None

    def exception(self):
        return UncompletedJobError("gone") if self._outcome == "gone" else None

    def result(self):
        return self._outcome

    def stderr(self):
        return "Warning: warm\nError: too hot\n"

    def cancel(self, check):
        self.cancelled = True


@pytest.fixture
def jobs(monkeypatch):
    """What jobs do, one after the other; the jobs that were submitted."""
    told = SimpleNamespace(acts=[], submitted=[], at_once=[])

    class Executor:
        @contextmanager
        def batch(self):
            before = len(told.submitted)
            yield
            told.at_once.append(len(told.submitted) - before)

        def submit(self, worker):
            told.submitted.append(FakeJob(len(told.submitted), told.acts.pop(0)))
            return told.submitted[-1]

    monkeypatch.setattr(slurm, "executor_for", lambda logs, asked: Executor())
    return told


def make(runs, out, watcher=None):
    with make_by_slurm(runs, out, ["sweep"], HOUR, watcher or Watcher()) as outcome:
        return outcome


def test_jobs_make_the_runs_and_the_watcher_is_told(runs, jobs, tmp_path):
    class Told(Watcher):
        begun, seen = [], []

        def begin(self, finished, to_make):
            self.begun.append((finished, len(to_make)))

        def watch(self, ended, running, elsewhere):
            self.seen.append(([(one.job.name, one.seconds, one.error) for one in ended], [job.name for job in running]))

    def first():
        finish(runs[1])
        (tmp_path / "erm-digits/seed-2.lease-1").write_text("third")
        return 0

    def second():
        finish(runs[2])
        (tmp_path / "erm-digits/seed-2.lease-1").unlink()
        return 0

    finish(runs[0])
    jobs.acts = [first, second]
    assert make(runs, tmp_path, Told()) == slurm.Outcome({}, [])
    assert Told.begun == [(1, 2)]
    assert jobs.at_once == [2]
    assert Told.seen[-1] == ([("erm-digits/seed-1", 3.0, None), ("erm-digits/seed-2", 3.0, None)], [])
    assert not any(job.cancelled for job in jobs.submitted)


def test_there_are_no_more_jobs_than_runs_and_none_for_none(runs, jobs, tmp_path):
    finish(runs[0])
    finish(runs[1])
    jobs.acts = [lambda: finish(runs[2]) or 0]
    make(runs, tmp_path)
    make(runs, tmp_path)
    assert jobs.at_once == [1]


def test_a_job_that_died_is_submitted_again(runs, jobs, tmp_path):
    def rest():
        for run in runs:
            finish(run)
        return 1

    jobs.acts = [lambda: "gone", None, lambda: -9, rest]
    with pytest.warns(UserWarning, match=r"job \d died, it is submitted again \(see \d\.err\)"):
        assert make(runs, tmp_path).errors == {}
    assert jobs.at_once == [2, 1, 1]
    # the one that did not end by itself is not left behind
    assert [job.cancelled for job in jobs.submitted] == [False, True, False, False]


def test_jobs_that_always_die_are_given_up(runs, jobs, tmp_path):
    finish(runs[0])
    jobs.acts = [lambda: "gone"] * (2 + slurm.RESUBMISSIONS)
    with pytest.warns(UserWarning, match="died"):
        errors = make(runs, tmp_path).errors
    assert not jobs.acts
    assert list(errors) == ["erm-digits/seed-1", "erm-digits/seed-2"]
    assert set(errors.values()) == {f"was not finished when all jobs had ended (see {tmp_path / 'slurm'})"}


def test_what_the_program_says_is_wrong_ends_all_jobs(runs, jobs, tmp_path):
    jobs.acts = [lambda: 2, None]
    with pytest.raises(UserError, match=r"^job 0: too hot$"):
        make(runs, tmp_path)
    assert jobs.submitted[1].cancelled


def test_an_interrupt_cancels_the_jobs(runs, jobs, tmp_path):
    class Stop(Watcher):
        def watch(self, ended, running, elsewhere):
            raise KeyboardInterrupt

    jobs.acts = [None, None]
    with pytest.raises(KeyboardInterrupt) as stopped:
        make(runs, tmp_path, Stop())
    assert "the jobs are cancelled" in stopped.value.__notes__[0]
    assert all(job.cancelled for job in jobs.submitted)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:00", 90),
        ("90:01", 91),
        ("01:30:00", 90),
        ("1:30:59", 91),
        ("2-0", 2880),
        ("1-2:03", 1563),
        ("1-02:03:04", 1564),
    ],
)
def test_the_time_is_read_as_sbatch_does(text, minutes):
    assert Slurm(1, {"time": text}).minutes == minutes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("local", 2, ()), "--slurm-jobs and --slurm are for --launcher slurm"),
        (("local", None, ("a=b",)), "--slurm-jobs and --slurm are for --launcher slurm"),
        (("slurm", None, ("time=3",)), "--slurm-jobs K is missing"),
        (("slurm", 2, ()), "--slurm time=HOURS:MINUTES:SECONDS is missing"),
        (("slurm", 2, ("time=soon",)), "--slurm time=soon: must be MINUTES"),
        (("slurm", 2, ("time",)), "--slurm time: must be NAME=VALUE"),
    ],
)
def test_a_mistake_is_one_line(given, message):
    with pytest.raises(UserError, match=message):
        slurm_of(*given)


def test_options_of_sbatch_are_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = slurm_of("slurm", 3, ["time=12:00:00", "--partition=gpu", "gres=gpu:1", "cpus_per_task=4"])
    with pytest.raises(UserError, match="there is no srun here"):
        executor_for(tmp_path / "logs", asked)
    (tmp_path / "srun").write_text("")
    (tmp_path / "srun").chmod(0o755)
    script = executor_for(tmp_path / "logs", asked)._make_submission_file_text("command", "id").splitlines()
    for line in ("time=720", "partition=gpu", "gres=gpu:1", "cpus-per-task=4", "job-name=reweight"):
        assert f"#SBATCH --{line}" in script
    assert len([line for line in script if "--job-name" in line]) == 1


def test_a_job_runs_the_program_and_hands_its_status_on():
    assert Worker(["--version"])() == 0
    assert Worker(["sweep"])() == 2


def test_when_its_time_is_over_a_job_stops_what_it_runs_and_does_it_again_later(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(60)"
    monkeypatch.setattr(slurm, "python_command", lambda arguments: (sys.executable, "-S", "-c", code, *arguments))
    worker, statuses = Worker(["sweep"]), []
    job = threading.Thread(target=lambda: statuses.append(worker()))
    job.start()
    while not pid.exists() or not pid.read_text():
        time.sleep(0.01)
    # all processes of a job hear the signal, and only the one that asks for more time may
    os.kill(int(pid.read_text()), signal.SIGUSR2)
    time.sleep(0.1)
    assert not statuses
    later = worker.checkpoint()
    job.join(timeout=10)
    assert statuses == [-signal.SIGTERM]
    assert vars(later.function) == vars(Worker(["sweep"]))
