"""Jobs do what a list in memory would, whatever workers do and in whatever order."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from cloud_pruner.state import Database, Jobs

workers = st.sampled_from(["a", "b", "c"])


@dataclass
class Known:
    state: str = "queued"
    worker: str = ""
    taken: int = 0
    late: bool = False

    def is_of(self, worker):
        return self.state == "running" and self.worker == worker


class JobsModel(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database.open(f"sqlite:///{Path(self.folder.name) / 'state.sqlite'}")
        self.jobs = Jobs(self.database)
        self.known = {}

    def teardown(self):
        self.database.close()
        self.folder.cleanup()

    @rule(target=ids)
    def submit(self):
        job = self.jobs.submit("porch", b"")
        self.known[job.id] = Known()
        return job.id

    @rule(worker=workers, late=st.booleans())
    def take(self, worker, late):
        free = [
            (id_, one)
            for id_, one in self.known.items()
            if one.state == "queued" or (one.state == "running" and one.late)
        ]
        for _, one in free:
            if one.state == "running" and one.taken == 3:
                one.state = "failed"
        expected = next((id_ for id_, one in free if one.state != "failed"), None)
        taken = self.jobs.take(worker, 0.0 if late else 600.0)
        assert (taken and taken.id) == expected
        if expected is not None:
            one = self.known[expected]
            one.state, one.worker, one.taken, one.late = "running", worker, one.taken + 1, late

    @rule(job=ids, worker=workers, how=st.sampled_from(["finish", "fail", "give_back", "renew"]))
    def end(self, job, worker, how):
        one = self.known[job]
        act = {
            "finish": lambda: self.jobs.finish(job, worker, b"answer"),
            "fail": lambda: self.jobs.fail(job, worker, "why"),
            "give_back": lambda: self.jobs.give_back(job, worker),
            "renew": lambda: self.jobs.renew(job, worker, 600.0),
        }[how]
        assert act() == one.is_of(worker)
        if one.is_of(worker):
            if how == "renew":
                one.late = False
            else:
                one.state = {"finish": "done", "fail": "failed", "give_back": "queued"}[how]
                one.taken -= how == "give_back"

    @invariant()
    def all_are_as_they_should_be(self):
        for id_, one in self.known.items():
            assert self.jobs.get(id_).state == one.state
        assert self.jobs.waiting() == sum(one.state == "queued" for one in self.known.values())


TestJobsModel = JobsModel.TestCase
TestJobsModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
