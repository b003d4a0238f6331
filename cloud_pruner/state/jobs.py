"""Requests that are worked later: handed in, taken by one worker at a time, ended.

A worker takes a job for a time and renews that while it works. One that dies lets its time run out, and another takes
the job; what was taken three times without an end fails, since it must be the job that kills them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import and_, delete, func, insert, or_, select, update

from cloud_pruner.state.names import line_of
from cloud_pruner.state.tables import JOBS, now

if TYPE_CHECKING:
    from datetime import datetime
    from typing import TypeAlias

    from sqlalchemy import Connection

    from cloud_pruner.state.database import Database

__all__ = ["Job", "JobState", "Jobs"]

JobState: TypeAlias = "Literal['queued', 'running', 'done', 'failed']"

_TAKEN_MAX: Final = 3
_GIVEN_UP: Final = f"given up: its worker ended {_TAKEN_MAX} times before the job was done"
_FIELDS: Final = (
    JOBS.c.id,
    JOBS.c.device,
    JOBS.c.state,
    JOBS.c.submitted,
    JOBS.c.finished,
    JOBS.c.request,
    JOBS.c.answer,
    JOBS.c.error,
)

_SUBMIT: Final = insert(JOBS)


@dataclass(frozen=True, slots=True)
class Job:
    """A request that is worked later.

    Attributes
    ----------
    id
        32 hexadecimal digits that nobody guesses.
    device
        Who asks.
    state
        "queued", "running", "done" or "failed".
    submitted, finished
        When; None: not yet.
    request
        What is asked, as it was handed in.
    answer
        What came of it; None unless it is done.
    error
        In one line, why it failed; "" unless it did.
    """

    id: str
    device: str
    state: JobState
    submitted: datetime
    finished: datetime | None
    request: bytes
    answer: bytes | None
    error: str


class Jobs:
    """The jobs of all workers on all machines; for any number of threads. Every method raises StateError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, device: str, request: bytes) -> Job:
        """Hand in a request; when this returns, it is on the disk."""
        job = Job(
            id=secrets.token_hex(16),
            device=line_of(device),
            state="queued",
            submitted=now(),
            finished=None,
            request=request,
            answer=None,
            error="",
        )
        row = {name: getattr(job, name) for name in ("id", "device", "state", "submitted", "request", "error")}
        self._database.write(lambda connection: connection.execute(_SUBMIT, {**row, "taken": 0}))
        return job

    def get(self, job: str) -> Job | None:
        """Return a job by its id; None where there is none, or it was forgotten."""
        with self._database.reading() as connection:
            row = connection.execute(select(*_FIELDS).where(JOBS.c.id == line_of(job))).one_or_none()
        return None if row is None else Job(*row)

    def take(self, worker: str, lease_s: float) -> Job | None:
        """Return the job that has waited longest, for `worker` alone for `lease_s` seconds; None where none waits.

        Parameters
        ----------
        worker
            A name that no other worker has, or ever had: `renew` and the end of the job go by it.
        lease_s
            After this time another may take it, unless it is renewed before.
        """
        # Looked at first: workers ask often, and mostly nothing waits.
        with self._database.reading() as connection:
            moment = self._database.time(connection)
            if connection.execute(select(JOBS.c.number).where(_may_be_taken(moment)).limit(1)).first() is None:
                return None
        with self._database.writing() as connection:
            moment = self._database.time(connection)
            self._give_up(connection, moment)
            chosen = (
                select(JOBS.c.number)
                .where(_may_be_taken(moment))
                .order_by(JOBS.c.number)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            number = connection.execute(chosen).scalar_one_or_none()
            if number is None:
                return None
            until = moment + timedelta(seconds=lease_s)
            row = connection.execute(
                update(JOBS)
                .where(JOBS.c.number == number)
                .values(state="running", worker=worker, until=until, taken=JOBS.c.taken + 1)
                .returning(*_FIELDS)
            ).one()
        return Job(*row)

    def renew(self, job: str, worker: str, lease_s: float) -> bool:
        """Keep a job for another `lease_s` seconds from now; False where it is another's by now, or ended."""
        with self._database.writing() as connection:
            until = self._database.time(connection) + timedelta(seconds=lease_s)
            return self._change(connection, job, worker, until=until)

    def give_back(self, job: str, worker: str) -> bool:
        """Let another take a job at once, as if it had not been taken; False where it is not `worker`'s."""
        with self._database.writing() as connection:
            return self._change(
                connection, job, worker, state="queued", worker=None, until=None, taken=JOBS.c.taken - 1
            )

    def finish(self, job: str, worker: str, answer: bytes) -> bool:
        """End a job with its answer; False where it is another's by now, who will end it."""
        return self._end(job, worker, state="done", answer=answer)

    def fail(self, job: str, worker: str, error: str) -> bool:
        """End a job that cannot be done, with the reason in one line; False where it is another's by now."""
        return self._end(job, worker, state="failed", error=line_of(error))

    def waiting(self) -> int:
        """Return how many jobs nobody has taken yet."""
        with self._database.reading() as connection:
            count: int = connection.execute(select(func.count()).where(JOBS.c.state == "queued")).scalar_one()
        return count

    def forget(self, before: datetime) -> int:
        """Delete the jobs that ended before a time; return how many."""
        with self._database.writing() as connection:
            return connection.execute(delete(JOBS).where(JOBS.c.finished < before)).rowcount

    def _end(self, job: str, worker: str, **values: Any) -> bool:
        with self._database.writing() as connection:
            finished = self._database.time(connection)
            return self._change(connection, job, worker, finished=finished, until=None, **values)

    @staticmethod
    def _change(connection: Connection, job: str, owner: str, **values: Any) -> bool:
        """Change a running job of `owner`, also where its time has run out and nobody else took it."""
        own = and_(JOBS.c.id == job, JOBS.c.worker == owner, JOBS.c.state == "running")
        return connection.execute(update(JOBS).where(own).values(**values)).rowcount > 0

    @staticmethod
    def _give_up(connection: Connection, moment: datetime) -> None:
        """Fail the jobs whose workers died too often."""
        lost = and_(JOBS.c.state == "running", JOBS.c.until < moment, JOBS.c.taken >= _TAKEN_MAX)
        connection.execute(
            update(JOBS).where(lost).values(state="failed", finished=moment, until=None, error=_GIVEN_UP)
        )


def _may_be_taken(moment: datetime) -> Any:
    """Return the condition of a job that nobody has, or whose worker's time has run out."""
    return or_(JOBS.c.state == "queued", and_(JOBS.c.state == "running", JOBS.c.until < moment))
