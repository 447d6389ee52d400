import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from reweight_core.cli import launch as launching
from reweight_core.cli.launch import launch
from reweight_core.errors import UserError

HEAD = "import os, signal, sys, time\nrank = int(os.environ['RANK'])\n"
TELL = (
    "from reweight_core.cli.launch import note_failure\nfrom reweight_core.errors import LostProcessError, UserError\n"
)
# every process has begun, and rank 0 signals the launcher
READY = """
open(str(rank), "w").close()
while not all(os.path.exists(str(other)) for other in range(2)):
    time.sleep(0.01)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start two processes that run some code in the place of the program."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} -c "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.chdir(tmp_path)

    def started(code, processes=2):
        with click.Context(click.Command("train"), obj=[HEAD + code]):
            launch(processes)

    return started


def test_each_process_knows_which_it_is_and_has_its_share_of_the_processors(start, monkeypatch, tmp_path):
    monkeypatch.setattr(launching, "usable_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
    code = f"open(f'{{rank}}.txt', 'w').write(' '.join(os.environ[name] for name in {names}))"
    start(code)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["0 0 2 2 4", "1 1 2 2 4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    start(code, 1)
    assert (tmp_path / "0.txt").read_text() == "0 0 1 1 3"


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        (
            "note_failure('a is lost', 2, LostProcessError()) if rank == 0 else note_failure('disk', 1, UserError())",
            "disk",
            1,
        ),
        ("note_failure('0', 2, UserError()) if rank == 0 else os.kill(os.getpid(), 9)", "0", 2),
        (
            "note_failure('a is lost', 2, LostProcessError()) if rank == 0 else os.kill(os.getpid(), 9)",
            "process 1 of the run was ended by SIGKILL; reweight resume RUN goes on from the last checkpoint",
            2,
        ),
        ("rank and sys.exit(7)", "process 1 of the run ended with exit status 7", 2),
    ],
)
def test_what_ended_a_run_is_told_in_one_line(start, code, message, status):
    ends = "\nsys.exit(0 if 'rank and' in sys.argv[0] else 2)" if "note" in code else ""
    with pytest.raises(UserError) as failed:
        start(TELL + code + ends)
    assert (str(failed.value), failed.value.status) == (message, status)


def test_the_others_are_killed_where_they_do_not_notice_that_one_has_failed(start, monkeypatch):
    monkeypatch.setattr(launching, "FAILED_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(UserError, match="exit status 3"):
        start("sys.exit(3) if rank else time.sleep(60)")
    assert 0.2 < time.monotonic() - started < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_what_the_processes_make_of_it_is_waited_for(
    start, monkeypatch, capfd, tmp_path, number
):
    # one that ends at once does not hurry the one that saves
    monkeypatch.setattr(launching, "FAILED_SECONDS", 0.1)
    code = f"""
caught = []
signal.signal({number:d}, lambda number, frame: caught.append(number))
{READY}
if rank == 0:
    os.kill(os.getppid(), {number:d})
while not caught:
    time.sleep(0.01)
if rank == 0:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(0.5)
    print("saved", caught, file=sys.stderr)
sys.exit({128 + number})
"""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        start(code)
    assert ended.value.code == 128 + number
    assert capfd.readouterr() == ("", f"saved [{number:d}]\n")
    assert signal.getsignal(number) == before


def test_a_run_that_ends_by_itself_all_the_same_has_gone_well(start):
    start(f"signal.signal(15, lambda *_: None)\n{READY}\nrank or os.kill(os.getppid(), 15)\ntime.sleep(0.3)")


def test_processes_that_a_signal_ends_at_once_leave_the_line_to_the_launcher(start, capfd):
    with pytest.raises(SystemExit) as ended:
        start(f"{READY}\nrank or os.kill(os.getppid(), 15)\ntime.sleep(60)")
    assert ended.value.code == 143
    assert capfd.readouterr() == ("", "ended by SIGTERM; reweight resume RUN goes on from the last checkpoint\n")


def test_an_error_after_a_signal_is_told(start):
    code = f"{READY}\ndef failed(*_):\n    note_failure('disk is full', 2, UserError())\n    sys.exit(2)\n"
    with pytest.raises(UserError, match="disk is full"):
        start(
            f"{TELL}signal.signal(15, lambda *_: failed())\n{code}\nrank or os.kill(os.getppid(), 15)\ntime.sleep(60)"
        )


def test_a_second_interrupt_kills(start, tmp_path):
    code = f"""
signal.signal(2, signal.SIG_IGN)
{READY}
if rank == 0:
    os.kill(os.getppid(), 2)
    time.sleep(0.2)
    os.kill(os.getppid(), 2)
time.sleep(60)
"""
    started = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        start(code)
    assert ended.value.code == 130
    assert time.monotonic() - started < 10


def test_what_the_launcher_ignores_it_goes_on_to_ignore(start):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        start(f"{READY}\nrank or os.kill(os.getppid(), signal.SIGHUP)\ntime.sleep(0.2)")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_windows_is_left_to_torchrun(start, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match=r"--processes 2: .* by torchrun"):
        start("pass")


def test_a_process_whose_launcher_has_ended_does_not_begin():
    if sys.platform != "linux":
        return
    code = "from reweight_core.cli.launch import end_with_launcher; end_with_launcher(); print('begun')"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {launching.LAUNCHER: "1"}, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")


def test_no_process_is_left_of_a_launcher_that_is_killed(tmp_path):
    if sys.platform != "linux":
        return
    stand_in = tmp_path / "python"
    begins = "from reweight_core.cli.launch import end_with_launcher; end_with_launcher()"
    code = f"{HEAD}{begins}\nopen(f'{{rank}}.part', 'w').write(str(os.getpid()))\n"
    code += "os.rename(f'{rank}.part', f'{rank}.pid')\ntime.sleep(60)"
    stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -c "$4"\n')
    stand_in.chmod(0o755)
    starter = (
        "import sys, click\nfrom reweight_core.cli.launch import launch\n"
        f"sys.executable = {str(stand_in)!r}\n"
        f"with click.Context(click.Command('train'), obj=[{code!r}]):\n    launch(2)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", starter], cwd=tmp_path)
    while len(files := list(tmp_path.glob("*.pid"))) < 2:
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 10
    while any(running(int(file.read_text())) for file in files) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(running(int(file.read_text())) for file in files)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
