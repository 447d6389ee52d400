import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from reweight_core import UserError
from reweight_experiments import leases
from reweight_experiments.leases import LAPSE_SECONDS, Leases


@pytest.fixture
def clock():
    """Tells ``clock.now``; each process of a test has its own, which need not agree."""
    return SimpleNamespace(now=0.0)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "seed-0"


def of(clock, ahead=0.0):
    return Leases(lambda: clock.now + ahead, lambda: clock.now + ahead)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_lease_is_taken_once_and_free_again_when_it_is_given_back(work, clock):
    first, second = of(clock), of(clock, ahead=1e6)
    lease = first.take(work)
    assert second.take(work) is None
    assert first.take(work) is None
    assert names(work.parent) == ["seed-0.lease-1"]
    first.give_back(lease)
    assert names(work.parent) == []
    assert second.take(work) is not None


def test_works_of_like_names_are_apart(tmp_path, clock):
    here = of(clock)
    for name in ("seed-1", "seed-11", "seed-1.lease-2"):
        assert here.take(tmp_path / name) is not None


def test_it_lapses_for_whoever_has_seen_it_unchanged_for_long_enough(work, clock):
    holder, other, late = of(clock), of(clock, ahead=1e6), of(clock, ahead=-1e6)
    lease = holder.take(work)
    for _ in range(10):
        clock.now += LAPSE_SECONDS - 1
        assert holder.renew(lease)
        assert other.take(work) is None
    clock.now += LAPSE_SECONDS - 1
    assert other.take(work) is None
    # whoever has not looked before cannot know yet
    clock.now += 1
    assert late.take(work) is None
    taken = other.take(work)
    assert taken is not None
    assert late.take(work) is None
    assert not holder.renew(lease)
    holder.give_back(lease)
    assert other.renew(taken)
    other.give_back(taken)
    assert names(work.parent) == []


def test_of_several_who_see_it_lapse_one_takes_it(work, clock):
    assert of(clock).take(work) is not None
    others = [of(clock, ahead) for ahead in range(20)]
    assert [other.take(work) for other in others] == [None] * 20
    clock.now += LAPSE_SECONDS
    barrier, taken = threading.Barrier(20), []

    def take(other):
        barrier.wait()
        taken.append(other.take(work))

    threads = [threading.Thread(target=take, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease is not None for lease in taken) == 1


def test_a_holder_that_comes_back_at_the_last_moment_keeps_it(work, clock, monkeypatch):
    holder, other = of(clock), of(clock)
    lease = holder.take(work)
    assert other.take(work) is None
    clock.now += LAPSE_SECONDS
    newest = leases._newest

    def renewed_before_the_next_is_made(work):
        monkeypatch.setattr(leases, "_newest", newest)
        found = newest(work)
        read = leases._read

        def read_then_renew(file):
            text = read(file)
            monkeypatch.setattr(leases, "_read", read)
            assert holder.renew(lease)
            return text

        monkeypatch.setattr(leases, "_read", read_then_renew)
        return found

    monkeypatch.setattr(leases, "_newest", renewed_before_the_next_is_made)
    assert other.take(work) is None
    assert holder.renew(lease)
    assert names(work.parent) == ["seed-0.lease-1"]


def test_a_lease_that_was_removed_or_replaced_is_lost_and_left_alone(work, clock):
    holder, other = of(clock), of(clock)
    lease = holder.take(work)
    lease.file.unlink()
    assert not holder.renew(lease)
    assert names(work.parent) == []
    second = other.take(work)
    assert second.file == lease.file
    before = second.file.read_text()
    assert not holder.renew(lease)
    holder.give_back(lease)
    assert second.file.read_text() == before
    assert other.renew(second)


def test_a_folder_that_cannot_be_written_to_for_a_while_loses_no_lease(work, clock, monkeypatch):
    holder = of(clock)
    lease = holder.take(work)

    def unreachable(*arguments, **named):
        raise OSError("stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", unreachable)
        clock.now += LAPSE_SECONDS - 1
        assert holder.renew(lease)
        clock.now += 1
        assert not holder.renew(lease)
        with pytest.raises(UserError, match=r"other: cannot be claimed \(stale file handle\)"):
            holder.take(work.with_name("other"))
    assert holder.renew(lease)


def test_others_are_heard_of_when_they_take_or_renew(work, clock):
    holder, other = of(clock), of(clock)
    assert not other.was_renewed_after(-1, work)
    lease = holder.take(work)
    clock.now = 10
    assert other.take(work) is None
    assert not other.was_renewed_after(10, work)
    clock.now = 20
    assert not other.was_renewed_after(10, work)
    holder.renew(lease)
    assert other.was_renewed_after(10, work)
    assert not other.was_renewed_after(20, work)


def test_one_waits_for_another_to_be_done(work, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(leases, "LAPSE_SECONDS", 0.2)
    order = []

    def second():
        with Leases().held(work):
            order.append("second")

    waiting = threading.Thread(target=second)
    with Leases().held(work):
        waiting.start()
        # it is renewed while it is held
        time.sleep(0.5)
        order.append("first")
    waiting.join(timeout=10)
    assert order == ["first", "second"]
    assert names(work.parent) == []


def test_processes_that_claim_at_once_share_what_there_is(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom reweight_experiments.leases import Leases\nleases = Leases()\n"
        "input()\nprint(*[i for i in range(200) if leases.take(Path(sys.argv[1]) / str(i))])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    taken = [int(text) for process in processes for text in process.communicate()[0].split()]
    assert sorted(taken) == list(range(200))
