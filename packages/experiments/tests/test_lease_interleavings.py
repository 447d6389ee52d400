"""Processes whose file accesses interleave in any order: who may believe that it holds a lease."""

import builtins
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reweight_experiments import leases
from reweight_experiments.leases import LAPSE_SECONDS, Leases

PROCESSES = 3


class Schedule:
    """Threads of which one moves at a time, from one file access to the next."""

    def __init__(self):
        self._mine = threading.local()
        self._moves = [threading.Semaphore(0) for _ in range(PROCESSES)]
        self._stands = threading.Semaphore(0)
        self._alive = set(range(PROCESSES))
        self.errors = []

    def wait(self):
        """Wait for a turn, in a thread of the schedule."""
        who = getattr(self._mine, "who", None)
        if who is not None:
            self._stands.release()
            self._moves[who].acquire()

    def run(self, who, body):
        self._mine.who = who
        self.wait()
        try:
            body(who)
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._alive.discard(who)
            self._stands.release()

    def play(self, body, moves, other):
        """Let each thread do its part; `moves` say who is next, and what is no thread's is done by `other`."""
        threads = [threading.Thread(target=self.run, args=(who, body)) for who in range(PROCESSES)]
        for thread in threads:
            thread.start()
            self._stands.acquire()
        for who in moves:
            if who in self._alive:
                self._move(who)
            elif who not in range(PROCESSES):
                other(who)
        while self._alive:
            self._move(min(self._alive))
        for thread in threads:
            thread.join()

    def _move(self, who):
        self._moves[who].release()
        self._stands.acquire()


def with_a_turn_first(schedule, function):
    def waiting(*arguments, **named):
        schedule.wait()
        return function(*arguments, **named)

    return waiting


# much happens in every example: what matters needs a take, a look, a lapse and another take
parts = st.lists(st.sampled_from(["take", "take", "renew", "give back"]), min_size=12, max_size=12)
moves = st.lists(st.sampled_from([*range(PROCESSES), *range(PROCESSES), "time"]), min_size=100, max_size=100)


@given(st.lists(parts, min_size=PROCESSES, max_size=PROCESSES), moves)
@settings(max_examples=60, deadline=None)
def test_a_lease_is_taken_from_who_has_not_renewed_it_and_learns_so_when_renewing(tmp_path_factory, parts, moves):
    work = tmp_path_factory.mktemp("any") / "work"
    clock, schedule = SimpleNamespace(now=0.0), Schedule()
    processes = [Leases(*[lambda ahead=ahead: clock.now + ahead] * 2) for ahead in (0.0, 1e5, -1e5)]
    held, renewed, took, wrong = {}, {}, [], []

    def body(who):
        for part in parts[who]:
            if part == "take" and who not in held:
                began = clock.now
                lease = processes[who].take(work)
                if lease is not None:
                    wrong.extend(other for other in held if clock.now - renewed[other] < LAPSE_SECONDS)
                    held[who], renewed[who] = lease, began
                    took.append(who)
            elif part == "renew" and who in held:
                began = clock.now
                later = took[max(place for place, one in enumerate(took) if one == who) + 1 :]
                if not processes[who].renew(held[who]):
                    processes[who].give_back(held.pop(who))
                else:
                    renewed[who] = began
                    wrong.extend(later)
            elif part == "give back" and who in held:
                processes[who].give_back(held.pop(who))

    def pass_time(_):
        clock.now += LAPSE_SECONDS

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_newest", "_read"):
            patch.setattr(leases, name, with_a_turn_first(schedule, getattr(leases, name)))
        patch.setattr(leases, "open", with_a_turn_first(schedule, builtins.open), raising=False)
        patch.setattr(Path, "unlink", with_a_turn_first(schedule, Path.unlink))
        schedule.play(body, moves, pass_time)
    assert not schedule.errors
    assert not wrong
    believing = [who for who, lease in held.items() if processes[who].renew(lease)]
    assert len(believing) <= 1
    # and nobody keeps it for ever
    late = Leases(lambda: clock.now, lambda: clock.now)
    first = late.take(work)
    clock.now += LAPSE_SECONDS
    assert first or late.take(work)
