import json
import threading
import time
from types import SimpleNamespace

import pytest

from reweight_core import as_values
from reweight_experiments import leases
from reweight_experiments.cells import axes_of, cells_of, plan_runs
from reweight_experiments.claims import Claims
from reweight_experiments.leases import LAPSE_SECONDS, RENEW_SECONDS

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


@pytest.fixture
def worker(tmp_path, clock):
    """Another process that wants the three runs of one cell made."""
    runs = plan_runs(cells_of(axes_of("erm", "digits", {}), {"epochs": 2}), 0, 3, tmp_path)
    runs[0].folder.parent.mkdir()
    return lambda: Claims(runs, lambda: clock.now, lambda: clock.now)


def finish(run, **changed):
    run.folder.mkdir(exist_ok=True)
    (run.folder / "config.json").write_text(json.dumps({"options": as_values(run.config) | changed}))
    (run.folder / "summary.json").write_text("{}")


def made_by(claims):
    """Let a process make whatever it can claim; give the seeds."""
    seeds = []
    while (run := claims.next()) is not None:
        finish(run)
        claims.end(run, None)
        seeds.append(run.config.seed)
    return seeds


def leases_in(folder):
    return sorted(path.name for path in folder.glob("*/*.lease-*"))


def test_each_run_is_made_by_one_process(worker, tmp_path):
    first, second = worker(), worker()
    one, two = first.next(), second.next()
    assert (one.config.seed, two.config.seed) == (0, 1)
    finish(one)
    first.end(one, None)
    assert made_by(first) == [2]
    assert first.open == {"erm-digits/seed-1"}
    assert first.outcome().elsewhere == ["erm-digits/seed-1"]
    finish(two)
    second.end(two, None)
    assert second.next() is None
    assert not second.open
    assert second.ended_elsewhere == 2
    for claims in (first, second):
        assert (claims.outcome().errors, claims.outcome().elsewhere) == ({}, [])
    assert leases_in(tmp_path) == []


def test_where_none_was_free_it_is_looked_again_after_a_while(worker, clock):
    first, second = worker(), worker()
    held = [first.next() for _ in range(3)]
    assert second.next() is None
    first.give_back()
    clock.now = RENEW_SECONDS - 0.1
    assert second.next() is None
    clock.now = RENEW_SECONDS
    assert second.next() is held[0]


def test_a_run_that_ended_between_the_look_and_the_claim_is_not_made_again(worker, monkeypatch, tmp_path):
    late = worker()
    taken = []

    def take(work, real=late._leases.take):
        if not taken:
            # just now another process makes it from beginning to end
            taken.append(work)
            first = worker()
            run = first.next()
            finish(run)
            first.end(run, None)
        return real(work)

    monkeypatch.setattr(late._leases, "take", take)
    assert late.next().config.seed == 1
    assert late.ended_elsewhere == 1
    assert leases_in(tmp_path) == ["seed-1.lease-1"]


def test_a_failure_elsewhere_is_told_and_not_tried_again(worker, tmp_path):
    first, second = worker(), worker()
    first.end(first.next(), "too hot (see it.log)")
    assert made_by(second) == [1, 2]
    for claims in (first, second):
        assert claims.outcome().errors == {"erm-digits/seed-0": "too hot (see it.log)"}
    assert made_by(first) == []

    # whoever begins later tries it again, as the same command does; that it failed again is news for all
    third, fourth = worker(), worker()
    third.end(third.next(), "too hot again")
    assert made_by(fourth) == []
    assert fourth.outcome().errors == {"erm-digits/seed-0": "too hot again"}
    assert made_by(worker()) == [0]
    assert not list(tmp_path.glob("*/*.failed"))
    # what is made after all has not failed
    assert not any(claims.outcome().errors for claims in (first, second, third, fourth))


def test_a_failure_that_cannot_be_read_is_a_failure(worker, tmp_path):
    claims = worker()
    (tmp_path / "erm-digits/seed-0.failed").write_text("[]")
    assert made_by(claims) == [1, 2]
    assert "could not say why" in claims.outcome().errors["erm-digits/seed-0"]


def test_a_run_that_another_sweep_finished_with_other_options_is_a_failure(worker):
    claims = worker()
    run = claims.next()
    claims.give_back()
    finish(run, epochs=3)
    assert made_by(claims) == [1, 2]
    assert "is finished, with epochs 3 where 2 is asked for" in claims.outcome().errors[run.name]


def test_the_run_of_a_dead_process_is_taken_over_and_that_of_a_living_one_is_not(worker, clock):
    dead, alive, late = worker(), worker(), worker()
    lost, kept = dead.next(), alive.next()
    assert made_by(late) == [2]
    idle = clock.now
    for _ in range(int(LAPSE_SECONDS / RENEW_SECONDS) - 1):
        clock.now += RENEW_SECONDS
        alive.renew()
        assert alive.lost() == []
        assert late.next() is None
        # one may be dead: it stays to see
        assert not late.others_are_alive(idle)
    clock.now += RENEW_SECONDS
    alive.renew()
    assert late.next() is lost
    assert late.next() is None
    # the dead one only slept
    assert dead.lost() == [lost.name]
    assert dead.next() is None
    finish(lost)
    late.end(lost, None)
    assert late.others_are_alive(idle)
    assert late.outcome().elsewhere == [kept.name]


def test_it_is_renewed_in_a_thread_whatever_else_this_process_does(worker, monkeypatch, tmp_path):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    claims = worker()
    with claims.renewed():
        claims.next()
        (file,) = tmp_path.glob("*/*.lease-1")
        seen = set()
        while len(seen) < 4:
            seen.add(file.read_text())
        claims.give_back()
        # what is given back is not made again
        time.sleep(0.05)
        assert leases_in(tmp_path) == []


def test_what_goes_wrong_in_the_thread_is_told_and_not_that_the_lease_is_lost(worker, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    claims = worker()
    claims.next()
    monkeypatch.setattr(claims._leases, "renew", lambda lease: 1 / 0)
    with claims.renewed(), pytest.raises(ZeroDivisionError):
        while True:
            assert claims.lost() == []


def test_a_machine_that_slept_notices_before_it_writes_a_result(worker, clock, tmp_path):
    slept, other = worker(), worker()
    run = slept.next()
    assert made_by(other) == [1, 2]
    # nothing of the sleeper runs, its thread neither
    clock.now += LAPSE_SECONDS
    assert other.next() is run
    # by its own clock alone, and at the end of the run in any case
    assert slept.lost() == [run.name]
    assert slept.end(run, "too hot") is False
    assert not list(tmp_path.glob("*/*.failed"))
    assert run.name in slept.open
    finish(run)
    assert other.end(run, None)
    assert (slept.outcome().errors, slept.outcome().elsewhere) == ({}, [])


def test_a_failure_is_not_written_over_that_of_who_took_the_run_over(worker, clock, tmp_path):
    slept, other = worker(), worker()
    run = slept.next()
    made_by(other)
    clock.now += LAPSE_SECONDS
    other.end(other.next(), "too cold")
    # it had ended before `lost` was asked
    assert not slept.end(run, "too hot")
    assert slept.outcome().errors == {run.name: "too cold"}
    assert leases_in(tmp_path) == []


def test_a_machine_that_slept_and_lost_nothing_goes_on(worker, clock):
    slept = worker()
    run = slept.next()
    clock.now += 100 * LAPSE_SECONDS
    assert slept.lost() == []
    assert slept.end(run, None)


def test_what_cannot_be_claimed_is_a_failure(worker, tmp_path):
    claims = worker()
    (tmp_path / "erm-digits").rmdir()
    (tmp_path / "erm-digits").write_text("")
    assert claims.next() is None
    errors = claims.outcome().errors
    assert len(errors) == 3
    assert "seed-0: cannot be claimed" in errors["erm-digits/seed-0"]
