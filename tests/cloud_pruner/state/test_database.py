"""A database is opened, made where there is none, and refused where it is somebody else's."""

from __future__ import annotations

import multiprocessing
import sqlite3

import pytest
from sqlalchemy import select, update

from cloud_pruner.errors import StateError, StateVersionError
from cloud_pruner.state import Database, Devices
from cloud_pruner.state.tables import STATE

# A server that has imported this forks them: a fresh interpreter each would cost more than the work itself.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["cloud_pruner.state"])


def test_what_was_written_is_there_when_it_is_opened_again(url):
    with Database.open(url) as database:
        Devices(database).register("porch", "birds")
    with Database.open(url) as database:
        assert Devices(database).get("porch").model == "birds"


def test_a_transaction_is_all_or_nothing(database):
    def fail(connection):
        connection.execute(update(STATE).values(version=99))
        raise LookupError

    for write in (database.write, lambda act: within(database.writing, act)):
        with pytest.raises(LookupError):
            write(fail)
    database.close()
    database.ping()
    with database.reading() as connection:
        assert connection.execute(select(STATE.c.version)).scalar_one() == 1


def test_many_open_an_empty_one_at_once(url):
    with processes.Pool(4) as pool:
        assert pool.map(open_and_ping, [url] * 8) == ["ok"] * 8


def test_another_version_is_refused(url):
    with Database.open(url) as database, database.writing() as connection:
        connection.execute(update(STATE).values(version=99))
    with pytest.raises(StateVersionError, match="has schema version 99, this program reads 1"):
        Database.open(url)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("nonsense", "the address of the database cannot be read: write sqlite:////"),
        ("mysql://root:secret@host/x", r"mysql://root:\*\*\*@host/x: is no database that is known here"),
        ("sqlite://", "is no database that is known here"),
        ("sqlite:////no/such/folder/s.sqlite", "No such file or directory: give the path of a file in a folder"),
        ("postgresql+psycopg://capnn:secret@127.0.0.1:1/x", r"capnn:\*\*\*@127.0.0.1:1/x: .*refused"),
    ],
)
def test_an_address_that_is_none(address, line):
    with pytest.raises(StateError, match=line) as raised:
        Database.open(address)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_somebody_elses_file_is_left_as_it_is(tmp_path):
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE birds (name TEXT)")
    theirs.close()
    content = path.read_bytes()
    with pytest.raises(StateVersionError, match="is no state of a service"):
        Database.open(f"sqlite:///{path}")
    with sqlite3.connect(path) as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("birds",)]
    theirs.close()
    assert len(path.read_bytes()) == len(content)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be taken for one" * 50)
    with pytest.raises(StateError, match="file is not a database"):
        Database.open(f"sqlite:///{tmp_path / 'notes.txt'}")


def open_and_ping(url):
    with Database.open(url) as database:
        database.ping()
    return "ok"


def within(context, act):
    with context() as entered:
        act(entered)
