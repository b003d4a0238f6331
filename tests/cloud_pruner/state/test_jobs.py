"""A job is worked by one at a time, and by another where that one dies."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import timedelta

from cloud_pruner.state import Database, Jobs
from cloud_pruner.state.tables import now
from tests.support.waiting import until

# A server that has imported this forks them: a fresh interpreter each would cost more than the work itself.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["cloud_pruner.state"])


def test_a_job_from_hand_to_hand(database, elsewhere):
    jobs, worker = Jobs(database), Jobs(elsewhere)
    assert worker.take("w", 60) is None
    handed_in = jobs.submit("porch", b"request")
    assert jobs.get(handed_in.id) == handed_in
    assert jobs.waiting() == 1
    taken = worker.take("w", 60)
    assert taken == replace(handed_in, state="running")
    assert jobs.waiting() == 0
    assert worker.finish(taken.id, "w", b"answer")
    done = jobs.get(handed_in.id)
    assert (done.state, done.answer, done.error) == ("done", b"answer", "")
    assert done.submitted <= done.finished
    assert jobs.get("0" * 32) is None


def test_first_come_first_served(database):
    jobs = Jobs(database)
    ids = [jobs.submit("porch", bytes([number])).id for number in range(5)]
    assert [jobs.take("w", 60).id for _ in ids] == ids


def test_a_failure_is_one_line(database):
    jobs = Jobs(database)
    job = jobs.submit("porch", b"")
    jobs.take("w", 60)
    assert jobs.fail(job.id, "w", "no such\nclass")
    assert (jobs.get(job.id).state, jobs.get(job.id).error) == ("failed", "no such class")


def test_a_job_that_is_renewed_stays(database):
    jobs = Jobs(database)
    job = jobs.submit("porch", b"")
    jobs.take("w", 0.0)
    assert jobs.renew(job.id, "w", 60)
    assert jobs.take("other", 60) is None
    assert not jobs.renew(job.id, "other", 60)


def test_the_job_of_a_worker_that_died_is_taken_by_another(database):
    jobs = Jobs(database)
    job = jobs.submit("porch", b"")
    jobs.take("dead", 0.0)
    until(lambda: jobs.take("other", 60))
    assert not jobs.renew(job.id, "dead", 60)
    assert not jobs.finish(job.id, "dead", b"late")
    assert not jobs.fail(job.id, "dead", "late")
    assert jobs.finish(job.id, "other", b"answer")
    assert jobs.get(job.id).answer == b"answer"


def test_one_that_is_late_but_alone_still_ends_its_job(database):
    jobs = Jobs(database)
    job = jobs.submit("porch", b"")
    jobs.take("w", 0.0)
    assert jobs.finish(job.id, "w", b"answer")
    assert jobs.take("other", 60) is None


def test_a_job_that_kills_its_workers_fails(database):
    jobs = Jobs(database)
    job = jobs.submit("porch", b"")
    for worker in ("a", "b", "c"):
        until(lambda worker=worker: jobs.take(worker, 0.0))
    until(lambda: jobs.take("d", 60) is None and jobs.get(job.id).state == "failed")
    assert "its worker ended 3 times" in jobs.get(job.id).error


def test_what_is_given_back_is_taken_as_if_for_the_first_time(database):
    jobs = Jobs(database)
    job = jobs.submit("porch", b"")
    for _ in range(5):
        assert jobs.take("draining", 60).id == job.id
        assert jobs.give_back(job.id, "draining")
    assert jobs.get(job.id).state == "queued"
    assert not jobs.give_back(job.id, "draining")
    jobs.take("dead", 0.0)
    until(lambda: jobs.take("other", 60))


def test_old_ends_are_forgotten(database):
    jobs = Jobs(database)
    ended, waits = jobs.submit("porch", b""), jobs.submit("porch", b"")
    jobs.take("w", 60)
    jobs.finish(ended.id, "w", b"")
    assert jobs.forget(now() - timedelta(hours=1)) == 0
    assert jobs.forget(now() + timedelta(hours=1)) == 1
    assert jobs.get(ended.id) is None
    assert jobs.get(waits.id) == waits


def test_processes_never_take_the_same(database, url):
    jobs = Jobs(database)
    handed_in = {jobs.submit("porch", b"").id for _ in range(120)}
    with processes.Pool(4) as pool:
        taken = pool.starmap(take_all, [(url, f"worker {number}") for number in range(4)])
    assert sorted(job for each in taken for job in each) == sorted(handed_in)


def take_all(url, worker):
    """Take and end jobs until there are none; return their ids."""
    taken = []
    with Database.open(url) as database:
        jobs = Jobs(database)
        while (job := jobs.take(worker, 60)) is not None:
            assert jobs.finish(job.id, worker, worker.encode())
            taken.append(job.id)
    return taken
