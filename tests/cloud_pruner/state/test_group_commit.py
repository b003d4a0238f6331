"""Writers who come at the same time share a transaction, and none fails because of another."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import insert, select

from cloud_pruner.errors import StateError
from cloud_pruner.state import Database
from cloud_pruner.state.tables import BASES


@pytest.fixture
def database(tmp_path):
    with Database.open(f"sqlite:///{tmp_path / 'state.sqlite'}") as database:
        yield database


def keep(digest):
    return lambda connection: connection.execute(insert(BASES).values(digest=digest, bytes=1))


def kept(database):
    with database.reading() as connection:
        return sorted(connection.execute(select(BASES.c.digest)).scalars())


def all_at_once(database, acts):
    """Let a thread for each of `acts` write while another has the turn; return what each of them raised."""
    raised = [None] * len(acts)
    arrived = threading.Semaphore(0)
    leave = threading.Event()

    def hold(connection):
        arrived.release()
        leave.wait(60)

    def write(number):
        arrived.release()
        try:
            database.write(acts[number])
        except (StateError, LookupError) as error:
            raised[number] = error

    holder = threading.Thread(target=database.write, args=(hold,))
    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(acts))]
    for thread in (holder, *threads):
        thread.start()
        assert arrived.acquire(timeout=60)
    leave.set()
    for thread in (holder, *threads):
        thread.join()
    return raised


def test_all_that_returned_is_there(database):
    digests = [f"{number:02d}" for number in range(40)]
    assert all_at_once(database, [keep(digest) for digest in digests]) == [None] * 40
    assert kept(database) == digests


def test_one_that_cannot_be_written_fails_alone(database):
    def fail(connection):
        keep("gone")(connection)
        raise LookupError("mine")

    acts = [keep("00"), fail, keep("01"), keep("00"), keep("02")]
    raised = all_at_once(database, acts)
    assert [type(error) for error in raised].count(LookupError) == 1
    assert isinstance(raised[1], LookupError)
    # Which of two that write the same comes first is chance; the other fails, with the database's own words.
    assert sum(isinstance(error, StateError) for error in raised) == 1
    assert kept(database) == ["00", "01", "02"]
