"""``--launcher slurm``: jobs that share the runs of a sweep, submitted through submitit."""

from __future__ import annotations

import re
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from reweight_core import UserError
from reweight_experiments.carry_out import Watcher
from reweight_experiments.cells import PlannedRun, check_whole_number
from reweight_experiments.claims import Claims, Outcome
from reweight_experiments.folder import make_folder, read_json, unfinished
from reweight_experiments.jobs import Ended, Job, python_command
from reweight_experiments.leases import Leases

if TYPE_CHECKING:
    import submitit

RESUBMISSIONS = 3
"""How many jobs that died are submitted again."""

TIMEOUTS = 100
"""How often a job is queued again when its time is over."""

LOOK_SECONDS = 5.0
"""Seconds after which the folder and the jobs are looked at again."""

GRACE_SECONDS = 30.0
"""Seconds that jobs have to end by themselves when all runs are over."""


@attrs.frozen
class Slurm:
    """Jobs of Slurm.

    Attributes:
        jobs: how many there are.
        parameters: options of sbatch by name (underscores); ``time`` is needed.
    """

    jobs: int
    parameters: Mapping[str, str]

    def __attrs_post_init__(self) -> None:
        check_whole_number("--slurm-jobs", self.jobs, 1)
        _ = self.minutes

    @property
    def minutes(self) -> int:
        """What each job may take; `UserError` if it is not given as sbatch takes it."""
        text = self.parameters.get("time")
        if text is None:
            raise UserError("--slurm time=HOURS:MINUTES:SECONDS is missing: say how long each job may take")
        found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
        if found is None:
            raise UserError(f"--slurm time={text}: must be MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS")
        days, first, second, seconds = (int(part or 0) for part in found.groups())
        if found[1] is None and found[4] is None:
            # MINUTES:SECONDS
            days, first, second, seconds = 0, 0, first, second
        return days * 1440 + first * 60 + second + (seconds > 0)


def slurm_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of which `slurm_of` makes a `Slurm`."""
    for added in (
        click.option(
            "--slurm", "slurm_parameters", multiple=True, metavar="NAME=VALUE", help="An option of sbatch, e.g. gpus=1."
        ),
        click.option("--slurm-jobs", type=click.IntRange(1), metavar="K", help="Number of jobs of --launcher slurm."),
        click.option(
            "--launcher",
            type=click.Choice(["local", "slurm"]),
            default="local",
            show_default=True,
            help="Who makes the runs: this process, or jobs of Slurm (needs submitit).",
        ),
    ):
        command = added(command)
    return command


def slurm_of(launcher: str, jobs: int | None, parameters: Sequence[str]) -> Slurm | None:
    """Read the options of `slurm_options`.

    Raises:
        UserError: if something is missing, or is not ``NAME=VALUE``.
    """
    if launcher != "slurm":
        if jobs is not None or parameters:
            raise UserError("--slurm-jobs and --slurm are for --launcher slurm")
        return None
    if jobs is None:
        raise UserError("--slurm-jobs K is missing: say how many jobs share the runs")
    named = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not name.strip("- ") or not equals:
            raise UserError(f"--slurm {text}: must be NAME=VALUE, e.g. partition=gpu")
        named[name.strip("- ").replace("-", "_")] = value
    return Slurm(jobs, named)


class Worker:
    """What a job runs: the program with these arguments, whose exit status it returns."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run it to its end."""
        # Slurm sends the signal that announces the end of a job to all its processes; `checkpoint` answers it
        unheard = ("sh", "-c", "trap '' USR2; exec \"$@\"", "sh")
        self._process = subprocess.Popen([*unheard, *python_command(self._arguments)])
        try:
            return self._process.wait()
        finally:
            self._stop()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Let others have what it has not finished; return what the job does when it is queued again."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(Worker(self._arguments))

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()


@contextmanager
def make_by_slurm(
    runs: Sequence[PlannedRun], out: Path, arguments: Sequence[str], slurm: Slurm, watcher: Watcher
) -> Iterator[Outcome]:
    """Do what `carry_out` does by jobs of Slurm, each of which runs the program with these arguments.

    Raises:
        UserError: before any job, as `carry_out`; or if jobs cannot be submitted, or say that something is wrong.
    """
    missing = unfinished(runs)
    logs = out / "slurm"
    executor = executor_for(logs, slurm)
    make_folder(out, f"--out {out}")
    claims = Claims(missing)
    watcher.begin(len(runs) - len(missing), {run.name: run for run in missing})
    try:
        if missing:
            _wait(executor, Worker([*arguments, "--quiet"]), min(slurm.jobs, len(missing)), claims, missing, watcher)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(
            f"the jobs are cancelled, and finished runs kept in {out}; the same command goes on from there"
        )
        raise
    with Leases().held(out / "results"):
        outcome = claims.outcome()
        left = {name: f"was not finished when all jobs had ended (see {logs})" for name in outcome.elsewhere}
        yield Outcome({**outcome.errors, **left}, [])


def executor_for(logs: Path, slurm: Slurm) -> submitit.Executor:
    """Return what submits the jobs.

    Raises:
        UserError: if there is no submitit or no Slurm here.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--launcher slurm needs submitit: pip install submitit") from None
    try:
        executor = submitit.SlurmExecutor(logs, max_num_timeout=TIMEOUTS)
    except RuntimeError:
        raise UserError("--launcher slurm: there is no srun here; give the command where jobs are submitted") from None
    others = {name: value for name, value in slurm.parameters.items() if name != "time"}
    executor.update_parameters(time=slurm.minutes, additional_parameters={"job_name": "reweight", **others})
    return executor


def _wait(
    executor: submitit.Executor,
    worker: Worker,
    count: int,
    claims: Claims,
    runs: Sequence[PlannedRun],
    watcher: Watcher,
) -> None:
    """Submit the jobs and tell the watcher how the runs get on, until all runs or all jobs are over."""
    shown = {run.name: Job(run.name, (), run.folder.with_name(f"{run.folder.name}.log")) for run in runs}
    folders = {run.name: run.folder for run in runs}
    ended: list[Ended] = []
    resubmissions = RESUBMISSIONS
    jobs = _submit(executor, worker, count)
    try:
        while jobs and claims.open:
            time.sleep(LOOK_SECONDS)
            done = [job for job in jobs if job.done()]
            for name, error in claims.look().items():
                seconds = 0.0 if error is not None else read_json(folders[name] / "summary.json").get("seconds", 0.0)
                ended.append(Ended(shown[name], seconds, error))
            watcher.watch(ended, [shown[name] for name in claims.claimed()], 0)
            for job in done:
                jobs.remove(job)
                if _went_well(job) or not claims.open:
                    continue
                if resubmissions:
                    resubmissions -= 1
                    jobs += _submit(executor, worker, 1)
                again = "it is submitted again" if resubmissions else "no more are submitted"
                warnings.warn(f"job {job.job_id} died, {again} (see {job.paths.stderr})", stacklevel=2)
        patience = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < patience and not all(job.done() for job in jobs):
            time.sleep(min(1.0, LOOK_SECONDS))
    finally:
        for job in jobs:
            if not job.done():
                job.cancel(check=False)


def _submit(executor: submitit.Executor, worker: Worker, count: int) -> list[submitit.Job[int]]:
    from submitit.core.utils import FailedJobError

    try:
        with executor.batch():
            return [executor.submit(worker) for _ in range(count)]
    except (FailedJobError, OSError) as error:
        raise UserError(f"--launcher slurm: the jobs cannot be submitted ({' '.join(str(error).split())})") from error


def _went_well(job: submitit.Job[int]) -> bool:
    """Whether a job ended by itself; that runs failed is told by the runs.

    Raises:
        UserError: what the program said was wrong, which it would say again.
    """
    status = None if job.exception() is not None else job.result()
    if status == 2:
        lines = [line for line in (job.stderr() or "").splitlines() if line.startswith("Error: ")]
        raise UserError(f"job {job.job_id}: {lines[-1].removeprefix('Error: ') if lines else job.paths.stderr}")
    return status in (0, 1)
