from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cache import SqliteStore, StoreError
from cache.sqlite import SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plans.sqlite"


def query(path: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Go to the file behind the store's back."""
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(statement, values).fetchall()


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
        store.put("00", b"a plan")
    rows = query(path, "SELECT key, value, sha256, last_used FROM entries")
    assert rows == [("00", b"a plan", hashlib.sha256(b"00a plan").digest(), 1)]
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


class TestDamagedRow:
    @pytest.mark.parametrize(
        "damage",
        [
            "value = X'62' || substr(value, 2)",
            "value = substr(value, 1, 3)",
            "value = ''",
            "value = 'text'",
            "sha256 = zeroblob(32)",
            "sha256 = 'text'",
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

    def test_every_single_flipped_bit_is_noticed(self, path: Path) -> None:
        with SqliteStore(path) as store:
            for position in range(8 * len(b"a plan")):
                store.put("00", b"a plan")
                flipped = bytearray(b"a plan")
                flipped[position // 8] ^= 1 << position % 8
                query(path, "UPDATE entries SET value = ?", bytes(flipped))
                assert store.get("00") is None
            assert store.statistics()[0].corrupt == 48

    def test_can_be_put_again(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            query(path, "UPDATE entries SET value = 'damaged'")
            assert store.get("00") is None
            store.put("00", b"a plan")
            assert store.get("00") == b"a plan"


class TestFileOfAnotherKind:
    def test_no_database_is_refused_and_left_as_it_is(self, path: Path) -> None:
        garbage = b"These are notes, and no cache.\n" * 100
        path.write_bytes(garbage)
        with pytest.raises(StoreError, match=r"plans\.sqlite: file is not a database: .*delete the file"):
            SqliteStore(path)
        assert path.read_bytes() == garbage

    def test_a_truncated_database_is_refused(self, path: Path) -> None:
        with SqliteStore(path) as store:
            for number in range(20):
                store.put(f"{number:02x}", b"v" * 5_000)
        path.write_bytes(path.read_bytes()[:10_000])
        with pytest.raises(StoreError, match=r"plans\.sqlite: database disk image is malformed: .*delete the file"):
            SqliteStore(path)

    @pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, -1])
    def test_another_schema_version_is_refused_and_left_as_it_is(self, path: Path, version: int) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
        query(path, f"PRAGMA user_version = {version}")
        before = path.read_bytes()
        with pytest.raises(StoreError, match=f"has schema version {version}, this program reads 1: delete the file"):
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


class TestFault:
    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"away/plans.sqlite: unable to open .*: see that its folder exists"):
            SqliteStore(tmp_path / "away" / "plans.sqlite")

    def test_a_folder_that_is_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match=r"file/plans.sqlite: unable to open .*: see that its folder exists"):
            SqliteStore(tmp_path / "file" / "plans.sqlite")

    def test_a_full_disk_is_an_error_and_leaves_what_was_there(self, path: Path) -> None:
        with SqliteStore(path) as store:
            store.put("00", b"a plan")
            # SQLite's own limit on the file: the same failure, in the same places, as a disk without room.
            store._connection.execute("PRAGMA max_page_count = 1")
            with pytest.raises(StoreError, match=r"plans\.sqlite: database or disk is full: .*has room"):
                store.put("01", b"v" * 100_000)
            assert store.get("00") == b"a plan"
            assert store.get("01") is None
            assert store.statistics()[0].faults == 1
            store._connection.execute("PRAGMA max_page_count = 1000000")
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

    def test_opening_waits_for_a_process_that_is_making_the_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr("cache.sqlite.time.sleep", lambda _: other.execute("ROLLBACK"))
            with SqliteStore(path) as store:
                assert len(store) == 0

    def test_opening_does_not_wait_for_ever(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cache.sqlite._BUSY_SECONDS", 0.0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match=r"plans\.sqlite: database is locked: .* no other process"):
                SqliteStore(path)

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
