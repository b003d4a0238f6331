from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import struct
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cache import SqliteStore, StoreError, Verification, WrongStoreError
from cache.entry import SCHEMA_VERSION
from cache.sqlite_file import set_aside

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plans.sqlite"


def query(path: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Go to the file behind the store's back."""
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(statement, values).fetchall()


def fill(path: Path) -> None:
    with SqliteStore(path) as store:
        for number in range(20):
            store.put(f"{number:02x}", b"v" * 3_000)


def zero_the_index(path: Path) -> None:
    """Overwrite one page: the file opens, but no key can be found in it."""
    [(index, page)] = query(
        path,
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'sqlite_autoindex_entries_1'",
    )
    with path.open("r+b") as file:
        file.seek((index - 1) * page)
        file.write(bytes(page))


class Later:
    """The clock, from a moment on."""

    time = staticmethod(time.time)

    def __init__(self, start: float) -> None:
        self.start = start

    def monotonic(self) -> float:
        return self.start


def test_entries_outlive_the_store(path: Path) -> None:
    with SqliteStore(path) as store:
        store.put("00", b"a plan")
    with SqliteStore(path) as store:
        assert store.get("00") == b"a plan"
        assert store.statistics()[0].bytes == 8


def test_the_order_of_use_outlives_the_store(path: Path) -> None:
    with SqliteStore(path, max_bytes=30) as store:
        for key in ("aa", "bb", "cc"):
            store.put(key, b"8 bytes.")
        store.get("aa")
    with SqliteStore(path, max_bytes=30) as store:
        store.put("dd", b"8 bytes.")
        assert sorted(store.keys()) == ["aa", "cc", "dd"]


def test_a_smaller_limit_holds_from_the_next_put(path: Path) -> None:
    with SqliteStore(path) as store:
        for number in range(10):
            store.put(f"0{number}", b"8 bytes.")
    with SqliteStore(path, max_bytes=30) as store:
        store.put("aa", b"8 bytes.")
        assert sorted(store.keys()) == ["08", "09", "aa"]


def test_with_a_limit_the_file_stops_growing(path: Path) -> None:
    with SqliteStore(path, max_bytes=100_000) as store:
        for number in range(30):
            store.put(f"{number:02x}", b"v" * 10_000)
        pages = query(path, "PRAGMA page_count")
        for number in range(30, 90):
            store.put(f"{number:02x}", b"v" * 10_000)
        assert query(path, "PRAGMA page_count") == pages


def test_a_row_holds_what_its_schema_says(path: Path) -> None:
    with SqliteStore(path) as store:
        store.put("00", b"a plan", 2.5)
    [(key, kept, last_used)] = query(path, "SELECT key, entry, last_used FROM entries")
    assert (key, last_used) == ("00", 1)
    digest, body = kept[:32], kept[32:]
    assert digest == hashlib.sha256(b"\0\0\0\x0200" + body).digest()
    assert body[:8] == struct.pack(">d", 2.5)
    assert body[16:] == b"a plan"
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


class TestDamagedRow:
    @pytest.mark.parametrize(
        "damage",
        [
            "entry = CAST(X'62' || substr(entry, 2) AS BLOB)",
            "entry = substr(entry, 1, 53)",
            "entry = substr(entry, 1, 40)",
            "entry = entry || X'00'",
            "entry = ''",
            "entry = 'text'",
            "entry = zeroblob(54)",
            "key = 'ff'",
        ],
    )
    def test_is_dropped_and_counted_never_returned(self, path: Path, damage: str) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            store.put("01", b"another")
            query(path, f"UPDATE entries SET {damage} WHERE key = '00'")
            key = "ff" if "key" in damage else "00"
            assert store.get(key) is None
            statistics = store.statistics()[0]
            assert (statistics.corrupt, statistics.hits, statistics.misses, statistics.evictions) == (1, 0, 1, 0)
            assert store.keys() == ["01"]
            assert store.get("01") == b"another"
            assert store.get(key) is None
            assert store.statistics()[0].corrupt == 1

    def test_can_be_put_again(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            query(path, "UPDATE entries SET entry = 'damaged'")
            assert store.get("00") is None
            store.put("00", b"a plan")
            assert store.get("00") == b"a plan"


class TestFileOfAnotherKind:
    def test_no_database_is_refused_and_left_as_it_is(self, path: Path) -> None:
        garbage = b"These are notes, and no cache.\n" * 100
        path.write_bytes(garbage)
        with pytest.raises(
            StoreError, match=r"plans\.sqlite: file is not a database, so no plan cache: give another path"
        ):
            SqliteStore(path)
        assert path.read_bytes() == garbage

    @pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, -1])
    def test_another_schema_version_is_refused_and_left_as_it_is(self, path: Path, version: int) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
        query(path, f"PRAGMA user_version = {version}")
        before = path.read_bytes()
        with pytest.raises(StoreError, match=f"has schema version {version}, this program reads 2: give another path"):
            SqliteStore(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("mark", ["CREATE TABLE notes (text)", "PRAGMA user_version = 1"])
    def test_another_programs_database_is_refused_without_advice_to_delete_it(self, path: Path, mark: str) -> None:
        query(path, mark)
        before = path.read_bytes()
        with pytest.raises(StoreError, match=r"a SQLite file, but not a plan cache: give another path$"):
            SqliteStore(path)
        assert path.read_bytes() == before

    def test_an_empty_file_becomes_a_cache(self, path: Path) -> None:
        path.touch()
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            assert store.get("00") == b"a plan"


class TestFileOfOursThatIsOfNoUse:
    @pytest.mark.parametrize("length", [100, 4096, 10_000])
    def test_a_truncated_one_is_set_aside_and_a_new_one_begun(
        self, path: Path, length: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(path)
        damaged = path.read_bytes()[:length]
        path.write_bytes(damaged)
        with SqliteStore(path) as store:
            assert store.keys() == []
            store.put("00", b"a plan")
            assert store.get("00") == b"a plan"
        assert path.with_name("plans.sqlite.damaged").read_bytes() == damaged
        assert len(caplog.records) == 1
        assert f"{path}: database disk image is malformed: set aside as plans.sqlite.damaged" in caplog.text

    def test_damage_that_is_met_later_is_one_fault_and_then_a_new_file(self, path: Path) -> None:
        fill(path)
        zero_the_index(path)
        with SqliteStore(path) as store:
            with pytest.raises(StoreError, match="malformed: set aside as plans.sqlite.damaged, a new cache is begun"):
                store.get("00")
            assert store.get("00") is None
            store.put("00", b"a plan")
            assert store.get("00") == b"a plan"
            assert store.statistics()[0].faults == 1
        assert path.with_name("plans.sqlite.damaged").exists()

    def test_even_one_whose_beginning_is_overwritten_while_it_is_used(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(path)
        with SqliteStore(path, max_bytes=10**6) as store:
            with path.open("r+b") as file:
                file.write(b"x" * 4096)
            for number in range(20):  # some pages are remembered
                with contextlib.suppress(StoreError):
                    store.put(f"{number:02x}", b"another plan")
                    assert store.get(f"{number:02x}") == b"another plan"
        # Nothing says any more that it was a cache. A service starts all the same, and has it when the file is gone.
        with SqliteStore(path, patient=True) as store:
            with pytest.raises(StoreError, match="file is not a database, so no plan cache"):
                store.put("00", b"a plan")
            monkeypatch.setattr("cache.sqlite.time", Later(time.monotonic() + 60))
            path.unlink()
            store.put("00", b"a plan")
            assert store.get("00") == b"a plan"
            assert store.statistics()[0].faults == 1

    def test_two_that_find_the_damage_set_it_aside_once(self, path: Path) -> None:
        fill(path)
        zero_the_index(path)
        with SqliteStore(path) as first, SqliteStore(path) as second:
            with pytest.raises(StoreError, match="malformed") as met:
                first.get("00")
            first.put("00", b"a plan")
            # The other process met the damage at the same time, and is late.
            assert second._opened is not None
            set_aside(path, second._opened[1], sqlite3.DatabaseError(str(met.value)))
            assert first.get("00") == b"a plan"
            assert second.get("00") == b"a plan"
            assert second.statistics()[0].faults == 0

    def test_a_file_that_was_deleted_while_it_was_used_is_made_anew(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            path.unlink()
            assert store.get("00") is None
            store.put("00", b"a plan")
        with SqliteStore(path) as store:
            assert store.get("00") == b"a plan"

    def test_an_older_schema_is_set_aside_and_never_served(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        fill(path)
        query(path, "PRAGMA user_version = 1")
        with SqliteStore(path) as store:
            assert store.get("00") is None
            assert store.keys() == []
        assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert query(path.with_name("plans.sqlite.schema-1"), "PRAGMA user_version") == [(1,)]
        assert "schema-1 is too old: set aside as plans.sqlite.schema-1" in caplog.text

    def test_a_look_from_outside_changes_nothing(self, path: Path) -> None:
        with pytest.raises(WrongStoreError, match="no such file: give the path of a cache"):
            SqliteStore(path, as_it_is=True)
        assert not path.exists()
        fill(path)
        path.write_bytes(path.read_bytes()[:10_000])
        with pytest.raises(StoreError, match="database disk image is malformed: delete the file"):
            SqliteStore(path, as_it_is=True)
        assert path.stat().st_size == 10_000


class TestVerify:
    def test_a_sound_file(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            store.put("é", b"another")
            assert store.verify() == Verification("sqlite", entries=2, corrupt=())

    def test_names_the_corrupt_entries_and_leaves_them(self, path: Path) -> None:
        with SqliteStore(path) as store:
            for key in ("00", "01", "02"):
                store.put(key, b"a plan")
            query(path, "UPDATE entries SET entry = substr(entry, 1, 50) WHERE key = '01'")
            query(path, "UPDATE entries SET key = CAST(X'C3' AS TEXT) WHERE key = '02'")  # cut in the midst of a letter
            for _ in range(2):
                found = store.verify()
                assert (found.entries, found.corrupt) == (3, ("01", "\ufffd"))
                assert not found.sound
            assert len(store) == 3

    def test_finds_damage_in_the_file_itself(self, path: Path) -> None:
        fill(path)
        zero_the_index(path)
        with SqliteStore(path, as_it_is=True) as store:
            found = store.verify()
            assert found.damage
            assert not found.sound

    def test_tells_how_far_it_is(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cache.sqlite._TOLD_EVERY", 2)
        told: list[tuple[str, int, int]] = []
        with SqliteStore(path) as store:
            for number in range(5):
                store.put(str(number), b"a plan")
            store.verify(lambda *step: told.append(step))
        assert told == [("entries", 2, 5), ("entries", 4, 5)]

    def test_finds_totals_that_are_wrong(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            query(path, "UPDATE totals SET bytes = 7")
            assert store.verify().damage == ("totals say (1, 7), (entries, bytes) are (1, 8)",)

    def test_describes_the_entries(self, path: Path) -> None:
        before = time.time()
        with SqliteStore(path) as store:
            store.put("00", b"a plan", 2.5)
            store.put("01", b"another")
            store.get("00")
            store.put("02", b"this writes down that 00 was read")
            entries = {entry.key: entry for entry in store.entries()}
        assert sorted(entries) == ["00", "01", "02"]
        first = entries["00"]
        assert (first.bytes, first.cost) == (8, 2.5)
        assert first.last_used is not None
        assert before <= first.created <= first.last_used <= time.time()


def test_a_clock_that_is_set_back_frees_the_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteStore(path) as store:
        assert store.acquire("plan", "one", 60)
        assert not store.acquire("plan", "two", 60)
        now = time.time()
        monkeypatch.setattr("cache.sqlite.time.time", lambda: now - 3600)
        assert store.acquire("plan", "two", 60)
        assert not store.acquire("plan", "one", 60)


class TestFault:
    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            StoreError, match=r"away/plans.sqlite: unable to open .*: give the path of a file in a folder that exists"
        ):
            SqliteStore(tmp_path / "away" / "plans.sqlite")

    def test_a_folder_that_is_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(
            StoreError, match=r"file/plans.sqlite: unable to open .*: give the path of a file in a folder that exists"
        ):
            SqliteStore(tmp_path / "file" / "plans.sqlite")

    def test_a_full_disk_is_an_error_and_leaves_what_was_there(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            # SQLite's own limit on the file: the same failure, in the same places, as a disk without room.
            assert store._opened is not None
            database = store._opened[0]
            database.execute("PRAGMA max_page_count = 1")
            with pytest.raises(StoreError, match=r"plans\.sqlite: database or disk is full: .*has room"):
                store.put("01", b"v" * 100_000)
            assert store.get("00") == b"a plan"
            assert store.get("01") is None
            assert store.statistics()[0].faults == 1
            database.execute("PRAGMA max_page_count = 1000000")
            store.put("01", b"v" * 100_000)
            assert store.get("01") == b"v" * 100_000

    def test_a_put_that_fails_half_way_changes_nothing(self, path: Path) -> None:
        with SqliteStore(path, max_bytes=20) as store:
            store.put("aa", b"8 bytes.")
            store.put("bb", b"8 bytes.")
            query(path, "CREATE TRIGGER refuse BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'refused'); END")
            with pytest.raises(StoreError, match=r"plans\.sqlite: refused"):
                store.put("cc", b"8 bytes.")  # it is written, but nothing can be evicted for it
            assert sorted(store.keys()) == ["aa", "bb"]
            assert store.statistics()[0].evictions == 0

    def test_opening_waits_for_a_process_that_writes(self, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            done = threading.Timer(0.1, other.execute, ["ROLLBACK"])
            done.start()
            with SqliteStore(path) as store:
                store.put("00", b"a plan")
                assert store.get("00") == b"a plan"
            done.join()

    def test_a_file_that_stays_locked_is_a_fault_and_rests_until_it_is_free(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cache.sqlite_file.BUSY_SECONDS", 0.0)
        with SqliteStore(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
            store.put("00", b"a plan")
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):  # one that waits, two that do not
                with pytest.raises(StoreError, match=r"plans\.sqlite: database is locked: .* no other process"):
                    store.put("01", b"another")
            assert store.statistics()[0].faults == 3
            other.execute("ROLLBACK")
            assert store._rest is not None
            monkeypatch.setattr("cache.sqlite.time", Later(store._rest[0]))
            store.put("01", b"another")
            assert store.get("00") == b"a plan"
            assert store.get("01") == b"another"

    def test_a_file_that_is_locked_when_it_is_opened_is_used_later(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cache.sqlite_file.BUSY_SECONDS", 0.0)
        monkeypatch.setattr("cache.sqlite._REST_SECONDS", 0.0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with SqliteStore(path) as store:
                with pytest.raises(StoreError, match=r"plans\.sqlite: database is locked"):
                    store.get("00")
                other.execute("ROLLBACK")
                store.put("00", b"a plan")
                assert store.get("00") == b"a plan"

    def test_a_folder_that_stays_locked_holds_nobody_for_ever(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cache.sqlite_file.BUSY_SECONDS", 0.0)
        folder = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        with SqliteStore(path) as store:
            with pytest.raises(StoreError, match=r"plans\.sqlite: another process keeps its folder locked"):
                store.get("00")
            os.close(folder)

    def test_a_closed_store_says_so(self, path: Path) -> None:
        store = SqliteStore(path)
        store.close()
        with pytest.raises(StoreError, match=r"plans\.sqlite: the store is closed: open it anew"):
            store.get("00")
        assert store.statistics()[0].entries is None

    def test_a_read_does_not_wait_for_another_connections_write(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                other.execute("DELETE FROM entries")
                assert store.get("00") == b"a plan"
                other.execute("ROLLBACK")
