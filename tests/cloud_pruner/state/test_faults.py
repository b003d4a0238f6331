"""A database that goes away is an error of one line within seconds, and works again once it is back."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time

import pytest

from cloud_pruner.errors import StateError
from cloud_pruner.state import Database, Devices, History, Jobs, Rollouts
from tests.support.disks import small_disk
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

BOUND_S = 30  # what "within seconds" is at most, on a busy machine


def fill(disk):
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def works(database):
    try:
        Jobs(database).submit("porch", b"")
    except StateError:
        return False
    return True


def all_fail(database, line):
    """Every kind of operation fails with one line, and many of them together do not wait for long."""
    start = time.monotonic()
    operations = (
        database.ping,
        lambda: Jobs(database).submit("porch", b""),
        lambda: Devices(database).register("yard"),
        lambda: History(database).fleet(),
        lambda: Rollouts(database).get("birds"),
    )
    for operation in operations * 5:
        with pytest.raises(StateError, match=line) as raised:
            operation()
        assert "\n" not in str(raised.value)
    assert time.monotonic() - start < BOUND_S


@pytest.fixture(scope="module")
def server():
    with PostgresServer() as server:
        yield server


class TestPostgresql:
    @pytest.fixture
    def database(self, server):
        with Database.open(server.url) as database:
            yield database

    def test_one_that_is_killed_and_started_again(self, server, database):
        jobs, devices = Jobs(database), Devices(database)
        token = devices.register("porch")
        handed_in = jobs.submit("porch", b"request")
        assert devices.by_token(token).name == "porch"
        server.kill()
        try:
            all_fail(database, "see that it can be reached")
            devices.saw("porch")
            # Longer than a look-up counts while the database is there: it goes on from memory.
            for _ in range(20):
                assert devices.by_token(token).name == "porch"
                time.sleep(0.1)
            with pytest.raises(StateError):
                devices.by_token("a token that nobody has shown here yet")
        finally:
            server.start()
        until(lambda: works(database))
        assert jobs.get(handed_in.id) == handed_in
        assert devices.by_token(token).name == "porch"
        devices.close()
        assert devices.get("porch").last_seen is not None

    def test_one_that_stands_still(self, server, database):
        assert works(database)
        server.freeze()
        try:
            all_fail(database, "see that it can be reached")
        finally:
            server.thaw()
        until(lambda: works(database))

    def test_a_row_that_somebody_keeps_locked(self, server, database):
        rollouts = Rollouts(database)
        rollouts.begin("birds", "a" * 64, "b" * 64)
        with Database.open(server.url) as other, other.writing() as connection:
            connection.exec_driver_sql("SELECT * FROM capnn_rollouts FOR UPDATE")
            with pytest.raises(StateError, match="statement timeout"):
                rollouts.start("birds", "b" * 64, 0.1)
            assert works(database)


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "state.sqlite"

    @pytest.fixture
    def database(self, path):
        with Database.open(f"sqlite:///{path}") as database:
            yield database

    def test_a_full_disk(self, tmp_path):
        with (
            small_disk(tmp_path / "disk", "1m") as disk,
            Database.open(f"sqlite:///{disk / 'state.sqlite'}") as database,
        ):
            jobs = Jobs(database)
            kept = jobs.submit("porch", b"request")
            filler = fill(disk)
            with pytest.raises(StateError, match="is full"):
                jobs.submit("porch", bytes(1 << 18))
            assert jobs.get(kept.id) == kept
            filler.unlink()
            assert works(database)

    def test_one_that_another_keeps_locked(self, path, database):
        token = Devices(database).register("porch")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        with pytest.raises(StateError, match="database is locked"):
            Jobs(database).submit("porch", b"")
        assert time.monotonic() - start < BOUND_S
        # Whoever reads does not wait for it, nor for whoever writes.
        assert Devices(database).get("porch").name == "porch"
        other.execute("ROLLBACK")
        other.close()
        until(lambda: works(database))
        assert Devices(database).by_token(token).name == "porch"

    def test_writers_of_many_threads_wait_for_each_other(self, database):
        failed = []

        def submit():
            try:
                for _ in range(5):
                    Jobs(database).submit("porch", b"")
            except StateError as error:
                failed.append(error)

        threads = [threading.Thread(target=submit) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert Jobs(database).waiting() == 100

    def test_a_file_that_is_gone_is_not_written_to(self, path, database):
        assert works(database)
        backup = path.with_name("backup")
        path.rename(backup)
        all_fail(database, "unable to open database file")
        assert not path.exists()
        backup.rename(path)
        assert works(database)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_one_that_may_not_be_written(self, path, database):
        path.chmod(0o400)
        with pytest.raises(StateError):
            Jobs(database).submit("porch", b"")

    def test_a_disk_that_turned_read_only(self, tmp_path):
        with (
            small_disk(tmp_path / "disk", "1m") as disk,
            Database.open(f"sqlite:///{disk / 'state.sqlite'}") as database,
        ):
            kept = Jobs(database).submit("porch", b"request")
            database.close()  # an open file keeps its disk writable
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            with pytest.raises(StateError, match="readonly|read-only|unable to open"):
                Jobs(database).submit("porch", b"")
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            until(lambda: works(database))
            assert Jobs(database).get(kept.id) == kept

    def test_tokens_go_on_from_memory(self, path, database):
        devices = Devices(database)
        token = devices.register("porch")
        assert devices.by_token(token).name == "porch"
        path.rename(path.with_name("away"))
        for _ in range(20):
            assert devices.by_token(token).name == "porch"
            time.sleep(0.1)
